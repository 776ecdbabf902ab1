"""Render tests/templates/*.jinja with transformers and write what comes out.

    python tests/reference/make_templates.py      # writes tests/templates/expected.json

Needs `transformers`; reads the byte-level tokenizer of make_tokenizers.py for the masks. The output is kept in the
repository; run this only to change it.
"""

import json
import pathlib
from datetime import datetime, timezone

from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

TESTS = pathlib.Path(__file__).resolve().parent.parent
FOLDER = TESTS / "templates"
CLOCK = 1_769_990_400  # 2026-02-02 00:00:00 UTC

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city, e.g. \"Zürich\" <now>",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The city's name"},
                    "days": {"type": "integer", "minimum": 1, "default": 3},
                    "factor": {"type": "number", "default": 0.5},
                },
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}}},
]

CONVERSATIONS = {
    "one": [{"role": "user", "content": "Hello!"}],
    "turns": [
        {"role": "user", "content": "  What is 2 + 2?  "},
        {"role": "assistant", "content": "4\n"},
        {"role": "user", "content": "And 3 × 3? 日本 🙂"},
        {"role": "assistant", "content": "Nine: \"9\"."},
    ],
    "system": [
        {"role": "system", "content": " You are terse.\n"},
        {"role": "user", "content": "Hi\r\nthere"},
        {"role": "assistant", "content": "Hey <b>&amp;</b>"},
        {"role": "user", "content": "Bye"},
    ],
    "thinking": [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "<think>\nfirst\n</think>\n\nBecause."},
        {"role": "user", "content": "Really?"},
        {"role": "assistant", "reasoning_content": "\nsecond\n", "content": "Yes.", "name": None},
    ],
    "tools": [
        {"role": "system", "content": "Use tools."},
        {"role": "user", "content": "Weather in Bern?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call12345",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": {"city": "Bern", "days": 2, "ratio": 1.0, "x": None}},
                }
            ],
        },
        {"role": "tool", "name": "get_weather", "tool_call_id": "call12345", "content": "{\"temp\": -3}"},
        {"role": "assistant", "content": "Minus three."},
        {"role": "user", "content": "Thanks"},
    ],
    "parts": [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " What is this? "}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
    ],
    "systems": [
        {"role": "system", "content": "One."},
        {"role": "user", "content": "Hi"},
        {"role": "system", "content": "Two. "},
        {"role": "assistant", "content": "Hello"},
    ],
    "wrong_order": [{"role": "assistant", "content": "I start"}, {"role": "user", "content": "No"}],
    "strange_role": [{"role": "user", "content": "x"}, {"role": "narrator", "content": "y"}],
}

DOCUMENTS = [{"id": 1, "title": "Tall penguins", "text": "Emperor penguins are tall."}, {"title": "Where", "text": "Antarctica"}]

OPTIONS = {
    "plain": {},
    "prompt": {"add_generation_prompt": True},
    "tools": {"tools": TOOLS, "add_generation_prompt": True},
    "documents": {"documents": DOCUMENTS, "add_generation_prompt": True},
    "arguments": {"add_generation_prompt": True, "enable_thinking": False, "date_string": "1 Jan 2000", "limit": 1, "bos_token": "<B>"},
    "open": {"continue_final_message": True},
}


def main():
    tokenizer = PreTrainedTokenizerFast.from_pretrained(TESTS / "tokenizers" / "byte_level")
    # strftime_now reads this module's clock.
    chat_template_utils.datetime = type("Clock", (), {"now": lambda: datetime.fromtimestamp(CLOCK, timezone.utc)})
    cases = []
    for path in sorted(FOLDER.glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        for conversation, messages in CONVERSATIONS.items():
            for option, kwargs in OPTIONS.items():
                case = {"template": path.stem, "conversation": conversation, "options": option}
                try:
                    case["text"] = tokenizer.apply_chat_template(
                        messages, chat_template=source, tokenize=False, **kwargs
                    )
                except Exception as error:  # The template refuses, or fails.
                    case["error"] = f"{type(error).__name__}: {error}"
                cases.append(case)

    masks = []
    for stem in ["chatml_generation", "generation_blocks"]:
        source = (FOLDER / f"{stem}.jinja").read_text(encoding="utf-8")
        for conversation in ["turns", "system"]:
            out = tokenizer.apply_chat_template(
                CONVERSATIONS[conversation], chat_template=source, return_assistant_tokens_mask=True, return_dict=True
            )
            masks.append(
                {
                    "template": stem,
                    "conversation": conversation,
                    "ids": list(out["input_ids"]),
                    "mask": list(out["assistant_masks"]),
                }
            )
    result = {"clock": CLOCK, "conversations": CONVERSATIONS, "options": OPTIONS, "cases": cases, "masks": masks}
    (FOLDER / "expected.json").write_text(json.dumps(result, ensure_ascii=False, indent=0))


if __name__ == "__main__":
    main()

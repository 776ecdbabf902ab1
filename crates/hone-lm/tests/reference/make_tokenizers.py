"""Train four small tokenizers and write what transformers makes of a few texts.

    python tests/reference/make_tokenizers.py          # writes tests/tokenizers/<kind>/ and tests/tokenizers/expected.json

Needs `transformers` and `tokenizers`. The files are kept in the repository; run this only to change them.
"""

import json
import pathlib
import random

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).resolve().parent.parent / "tokenizers"

TEXTS = [
    "The cat sat on the mat.",
    "  two leading spaces, a tab\t, and\n\nblank lines \n",
    "Zürich, naïve façade, Ångström; Ελλάδα; Привет, мир!",
    "日本語のテキスト、中文，한국어 문장.",
    "emoji 🙂👩‍👩‍👧‍👦🏳️‍🌈 and flags 🇨🇭🇯🇵",
    "def f(x):\n    return {'a': [1, 2.5, -3e4], \"b\": None}  # comment",
    "12345 67890 3.14159 1,000,000",
    "I'll they've it's DON'T we'd",
    "combining e\u0301 and zero\u200bwidth, nbsp\u00a0here",
    "<|im_start|>user\nhello<|im_end|>\n<s>nested</s>",
    "",
    " ",
    "a",
    "\u0000control\u0007 characters",
    "ALL CAPS and MiXeD, hyphen-ated_words/with\\slashes",
]

CORPUS = TEXTS + [
    "the quick brown fox jumps over the lazy dog and runs through the forest",
    "a model learns from feedback: what was good, what was bad, and why",
    "she said that the answer is four because two and two are four",
    "for every prompt there are responses, and for every response there is feedback",
    "the user asks, the assistant answers, the user says thanks",
] * 4

CHAT = ["<|im_start|>", "<|im_end|>", "<s>", "</s>", "<pad>", "<unk>"]


def byte_level():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                # The split of recent decoder families: words, numbers of up to three digits, punctuation, space.
                Regex(
                    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
                ),
                behavior="isolated",
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=CHAT, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    t.train_from_iterator(CORPUS, trainer)
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return t


def byte_fallback():
    t = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    ascii_only = [text for text in CORPUS if text.isascii() and "\x00" not in text]
    trainer = trainers.BpeTrainer(
        vocab_size=560,
        special_tokens=CHAT + [f"<0x{b:02X}>" for b in range(256)],
        show_progress=False,
    )
    t.train_from_iterator([text.replace(" ", "▁") for text in ascii_only], trainer)
    # The trainer marks the byte tokens as added; in a real file they are plain vocabulary.
    saved = json.loads(t.to_str())
    saved["added_tokens"] = [a for a in saved["added_tokens"] if not a["content"].startswith("<0x")]
    t = Tokenizer.from_str(json.dumps(saved))
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", t.token_to_id("<s>"))]
    )
    return t


def word_piece():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=420, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False
    )
    t.train_from_iterator(CORPUS, trainer)
    cls, sep = t.token_to_id("[CLS]"), t.token_to_id("[SEP]")
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    )
    return t


def unigram():
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=380, special_tokens=["<unk>", "<s>", "</s>", "<pad>"], unk_token="<unk>", show_progress=False
    )
    t.train_from_iterator(CORPUS, trainer)
    t.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", t.token_to_id("</s>"))]
    )
    return t


KINDS = {
    "byte_level": (byte_level, dict(bos_token="<s>", eos_token="<|im_end|>", pad_token="<pad>")),
    "byte_fallback": (byte_fallback, dict(bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")),
    "word_piece": (
        word_piece,
        dict(cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]"),
    ),
    "unigram": (unigram, dict(bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")),
}


def main():
    expected = {}
    for kind, (make, special) in KINDS.items():
        folder = HERE / kind
        folder.mkdir(parents=True, exist_ok=True)
        fast = PreTrainedTokenizerFast(tokenizer_object=make(), **special)
        fast.save_pretrained(folder)
        fast = PreTrainedTokenizerFast.from_pretrained(folder)
        cases = []
        for text in TEXTS:
            ids = fast(text, add_special_tokens=True)["input_ids"]
            bare = fast(text, add_special_tokens=False, return_offsets_mapping=True)
            cases.append(
                {
                    "text": text,
                    "ids": ids,
                    "bare": bare["input_ids"],
                    "offsets": bare["offset_mapping"],
                    "decoded": fast.decode(ids, skip_special_tokens=False),
                    "skipped": fast.decode(ids, skip_special_tokens=True),
                }
            )
        rng = random.Random(7)
        noise = []
        for _ in range(20):
            ids = [rng.randrange(len(fast)) for _ in range(30)]
            noise.append({"ids": ids, "decoded": fast.decode(ids, skip_special_tokens=False)})
        expected[kind] = {"size": len(fast), "cases": cases, "noise": noise}
    (HERE / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=0))


if __name__ == "__main__":
    main()

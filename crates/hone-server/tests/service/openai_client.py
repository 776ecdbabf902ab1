"""What an application does with the official client, against the service at the address given."""

import sys

import openai

base, refusing = sys.argv[1:]
client = openai.OpenAI(base_url=base + "/v1", api_key="any")
messages = [{"role": "user", "content": "Say hello."}]

raw = client.chat.completions.with_raw_response.create(model="m", messages=messages)
answer = raw.parse()
assert answer.choices[0].message.content == "Hello.", answer
assert answer.id == raw.headers["x-hone-id"]
assert answer.choices[0].logprobs.content[0].logprob == -0.1
assert answer.model_extra["odd"] == {"z": 1, "a": 1.5}
assert answer._request_id.startswith("req-")

stream = client.chat.completions.create(model="m", messages=messages, stream=True)
chunks = list(stream)
text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
assert text == "Hello." and chunks[-1].usage.completion_tokens == 2, chunks

completion = client.completions.create(model="m", prompt="x")
assert completion.choices[0].text == "t0"
assert client.embeddings.create(model="m", input="x", encoding_format="float").data[0].embedding == [0.5, -0.25]
assert [model.id for model in client.models.list()] == ["m"]

feedback = client.post("/feedback", body={"form": "thumb", "on": answer.id, "value": True}, cast_to=object)
assert feedback["state"] in ("joined", "early"), feedback

try:
    client.chat.completions.create(model="m", messages=[])
    raise SystemExit("an empty conversation was taken")
except openai.BadRequestError as error:
    assert error.param == "messages" and error.code == "invalid_value", error
try:
    openai.OpenAI(base_url=refusing + "/v1", api_key="any").chat.completions.create(model="m", messages=messages)
    raise SystemExit("a refusal was taken")
except openai.BadRequestError as error:
    assert error.code == "as_told", error
print("fine")

"""The four ways to ask that the official SDKs have, each with its bodies, its answers and its errors in one form.

A body is what a scenario gives, with the model; what of an answer is compared is an `Answer`.
"""

import json
from dataclasses import dataclass, field

import anthropic
import openai
from google import genai
from google.genai import errors, types

TIMEOUT_SECONDS = 20
ANTHROPIC_VERSION = "2023-06-01"


@dataclass
class Answer:
    """What every dialect says of an answer. `usage` counts the cache within the input and thinking within the output."""

    text: str = ""
    calls: list = field(default_factory=list)
    finish: str = ""
    usage: dict = field(default_factory=dict)
    headers: dict = field(default_factory=dict)
    #: What the caller puts into the next request for it.
    turn: list = field(default_factory=list)
    #: How many answers came.
    choices: int = 1


@dataclass
class Call:
    id: str
    name: str
    arguments: dict


class Failed(Exception):
    """A refusal, or a stream that broke: as the SDK raised it."""

    def __init__(self, error, status, seen=""):
        super().__init__(f"{status}: {error!r}")
        self.status = status
        #: The text that came before.
        self.seen = seen


class Chat:
    name = "chat"
    has_count = False
    errors = {400: openai.BadRequestError, 401: openai.AuthenticationError, 404: openai.NotFoundError, 429: openai.RateLimitError}

    def __init__(self, url, key):
        self.client = openai.OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0, timeout=TIMEOUT_SECONDS)
        self.key = key

    def close(self):
        self.client.close()

    def head(self):
        return {"authorization": f"Bearer {self.key}"}

    def plain(self, kind, ask, model, stream):
        """Path and body of the same request without an SDK."""
        if kind == "embeddings":
            return "/v1/embeddings", {"model": model, **ask, "encoding_format": "float"}
        options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        return "/v1/chat/completions", {"model": model, **ask, **options}

    def send(self, ask, model):
        raw = self._asked(lambda: self.client.chat.completions.with_raw_response.create(model=model, **ask))
        done = raw.parse()
        choice = done.choices[0]
        return self._answer(choice.message, choice.finish_reason, done.usage, raw.headers, len(done.choices))

    def stream(self, ask, model):
        create = self.client.chat.completions.with_raw_response.create
        raw = self._asked(lambda: create(model=model, stream=True, stream_options={"include_usage": True}, **ask))
        text, calls, finish, usage = "", {}, None, None
        try:
            for chunk in raw.parse():
                usage = chunk.usage or usage
                for choice in chunk.choices:
                    text += choice.delta.content or ""
                    finish = choice.finish_reason or finish
                    for piece in choice.delta.tool_calls or []:
                        call = calls.setdefault(piece.index, {"type": "function", "function": {"arguments": ""}})
                        call["id"] = piece.id or call["id"]
                        function = call["function"]
                        function["name"] = piece.function.name or function["name"]
                        function["arguments"] += piece.function.arguments or ""
        except (openai.APIError, openai.APIConnectionError) as error:
            raise Failed(error, None, text) from error
        message = {"role": "assistant", "content": text or None, "tool_calls": list(calls.values()) or None}
        message = openai.types.chat.ChatCompletionMessage.model_validate(message)
        return self._answer(message, finish, usage, raw.headers)

    def _answer(self, message, finish, usage, headers, choices=1):
        calls = [Call(c.id, c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls or []]
        details = usage.prompt_tokens_details
        counts = {
            "input": usage.prompt_tokens,
            "cached": (details and details.cached_tokens) or 0,
            "output": usage.completion_tokens,
        }
        names = {"stop": "stop", "length": "length", "tool_calls": "tools"}
        turn = [message.model_dump(exclude_none=True)]
        return Answer(message.content or "", calls, names[finish], counts, headers, turn, choices)

    def answered(self, ask, answer, result):
        """The next request: the answer, and what its calls gave."""
        results = [{"role": "tool", "tool_call_id": call.id, "content": result} for call in answer.calls]
        return {**ask, "messages": [*ask["messages"], *answer.turn, *results]}

    def vectors(self, ask, model):
        raw = self._asked(lambda: self.client.embeddings.with_raw_response.create(model=model, **ask))
        done = raw.parse()
        usage = {"input": done.usage.prompt_tokens, "cached": 0, "output": 0}
        return [item.embedding for item in done.data], usage, raw.headers

    def models(self):
        return [model.id for model in self._asked(self.client.models.list)]

    def _asked(self, call):
        try:
            return call()
        except openai.APIStatusError as error:
            assert isinstance(error, self.errors.get(error.status_code, openai.InternalServerError)), error
            raise Failed(error, error.status_code) from error


class Responses(Chat):
    name = "responses"
    has_count = True

    def plain(self, kind, ask, model, stream):
        if kind == "count":
            return "/v1/responses/input_tokens", {"model": model, **ask}
        return "/v1/responses", {"model": model, **ask, **({"stream": True} if stream else {})}

    def send(self, ask, model):
        raw = self._asked(lambda: self.client.responses.with_raw_response.create(model=model, **ask))
        return self._read(raw.parse(), raw.headers)

    def stream(self, ask, model):
        raw = self._asked(lambda: self.client.responses.with_raw_response.create(model=model, stream=True, **ask))
        text, last = "", None
        try:
            for event in raw.parse():
                if event.type == "response.output_text.delta":
                    text += event.delta
                elif event.type in ("response.completed", "response.incomplete"):
                    last = event.response
                elif event.type in ("error", "response.failed"):
                    raise Failed(event, None, text)
        except (openai.APIError, openai.APIConnectionError) as error:
            raise Failed(error, None, text) from error
        if last is None:
            raise Failed("no end", None, text)
        answer = self._read(last, raw.headers)
        assert answer.text == text, (answer.text, text)
        return answer

    def _read(self, done, headers):
        calls = [Call(i.call_id, i.name, json.loads(i.arguments)) for i in done.output if i.type == "function_call"]
        usage = done.usage
        counts = {
            "input": usage.input_tokens,
            "cached": usage.input_tokens_details.cached_tokens,
            "output": usage.output_tokens,
        }
        finish = {"completed": "stop", "incomplete": "length"}[done.status]
        turn = [item.model_dump(exclude_none=True, mode="json") for item in done.output]
        return Answer(done.output_text, calls, "tools" if calls else finish, counts, headers, turn)

    def answered(self, ask, answer, result):
        outputs = [{"type": "function_call_output", "call_id": call.id, "output": result} for call in answer.calls]
        return {**ask, "input": [*ask["input"], *answer.turn, *outputs]}

    def count(self, ask, model):
        return self._asked(lambda: self.client.responses.input_tokens.count(model=model, **ask)).input_tokens


class Messages:
    name = "messages"
    has_count = True
    errors = {
        400: anthropic.BadRequestError,
        401: anthropic.AuthenticationError,
        404: anthropic.NotFoundError,
        429: anthropic.RateLimitError,
    }

    def __init__(self, url, key):
        self.client = anthropic.Anthropic(api_key=key, base_url=url, max_retries=0, timeout=TIMEOUT_SECONDS)
        self.key = key

    def close(self):
        self.client.close()

    def head(self):
        return {"x-api-key": self.key, "anthropic-version": ANTHROPIC_VERSION}

    def plain(self, kind, ask, model, stream):
        path = "/v1/messages/count_tokens" if kind == "count" else "/v1/messages"
        return path, {"model": model, **ask, **({"stream": True} if stream else {})}

    def send(self, ask, model):
        raw = self._asked(lambda: self.client.messages.with_raw_response.create(model=model, **self._arguments(ask)))
        return self._read(raw.parse(), raw.headers)

    def _arguments(self, ask):
        """What the SDK has no arguments for, because newer models refuse it, goes beside them."""
        extra = {name: ask[name] for name in ("temperature", "top_p") if name in ask}
        return {**{name: value for name, value in ask.items() if name not in extra}, "extra_body": extra}

    def stream(self, ask, model):
        text = ""
        try:
            with self.client.messages.stream(model=model, **self._arguments(ask)) as stream:
                for piece in stream.text_stream:
                    text += piece
                answer = self._read(stream.get_final_message(), stream.response.headers)
        except anthropic.APIStatusError as error:
            raise Failed(error, error.status_code, text) from error
        except (anthropic.APIError, anthropic.APIConnectionError) as error:
            raise Failed(error, None, text) from error
        assert answer.text == text, (answer.text, text)
        return answer

    def _read(self, done, headers):
        calls = [Call(block.id, block.name, block.input) for block in done.content if block.type == "tool_use"]
        usage = done.usage
        cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
        counts = {"input": usage.input_tokens + cached + written, "cached": cached, "output": usage.output_tokens}
        names = {"end_turn": "stop", "max_tokens": "length", "tool_use": "tools"}
        text = "".join(block.text for block in done.content if block.type == "text")
        turn = [{"role": "assistant", "content": [block.to_dict(exclude_none=True) for block in done.content]}]
        return Answer(text, calls, names[done.stop_reason], counts, headers, turn)

    def answered(self, ask, answer, result):
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": result} for call in answer.calls]
        return {**ask, "messages": [*ask["messages"], *answer.turn, {"role": "user", "content": results}]}

    def count(self, ask, model):
        return self._asked(lambda: self.client.messages.count_tokens(model=model, **ask)).input_tokens

    def models(self):
        return [model.id for model in self._asked(self.client.models.list)]

    def _asked(self, call):
        try:
            return call()
        except anthropic.APIStatusError as error:
            assert isinstance(error, self.errors.get(error.status_code, anthropic.InternalServerError)), error
            raise Failed(error, error.status_code) from error


class Gemini:
    name = "gemini"
    has_count = True

    def __init__(self, url, key):
        self.client = genai.Client(
            api_key=key, http_options=types.HttpOptions(base_url=url, timeout=TIMEOUT_SECONDS * 1000)
        )
        self.key = key

    def close(self):
        self.client.close()

    def head(self):
        return {"x-goog-api-key": self.key}

    def plain(self, kind, ask, model, stream):
        path = f"/v1beta/models/{model}"
        match kind:
            case "count":
                return f"{path}:countTokens", ask
            case "embeddings":
                requests = [{"model": f"models/{model}", "content": content} for content in ask["contents"]]
                return f"{path}:batchEmbedContents", {"requests": requests}
            case _:
                return f"{path}:streamGenerateContent?alt=sse" if stream else f"{path}:generateContent", ask

    def send(self, ask, model):
        done = self._asked(lambda: self.client.models.generate_content(**self._arguments(ask, model)))
        return self._read([done])

    def stream(self, ask, model):
        pieces = []
        try:
            for piece in self.client.models.generate_content_stream(**self._arguments(ask, model)):
                pieces.append(piece)
        except errors.APIError as error:
            raise Failed(error, error.code, self._text(pieces)) from error
        except Exception as error:
            # A stream that breaks below HTTP comes as the HTTP library's own error.
            if type(error).__module__.split(".")[0] not in ("httpx", "httpcore", "aiohttp", "requests", "urllib3", "json"):
                raise
            raise Failed(error, None, self._text(pieces)) from error
        if not pieces or not pieces[-1].candidates or not pieces[-1].candidates[0].finish_reason:
            raise Failed("no end", None, self._text(pieces))
        return self._read(pieces)

    def _arguments(self, ask, model):
        config = dict(ask.get("generationConfig", {}))
        config |= {name: ask[name] for name in ("systemInstruction", "tools", "toolConfig") if name in ask}
        return {"model": model, "contents": ask["contents"], "config": config or None}

    def _parts(self, pieces):
        contents = [piece.candidates[0].content for piece in pieces if piece.candidates]
        return [part for content in contents if content for part in content.parts or []]

    def _text(self, pieces):
        return "".join(part.text for part in self._parts(pieces) if part.text and not part.thought)

    def _read(self, pieces):
        parts, last = self._parts(pieces), pieces[-1]
        calls = [part.function_call for part in parts if part.function_call]
        calls = [Call(call.id, call.name, call.args) for call in calls]
        usage = last.usage_metadata
        counts = {
            "input": usage.prompt_token_count,
            "cached": usage.cached_content_token_count or 0,
            "output": (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0),
        }
        finish = {"STOP": "stop", "MAX_TOKENS": "length"}[last.candidates[0].finish_reason.value]
        said = [part.model_dump(exclude_none=True, by_alias=True, mode="json") for part in parts]
        headers = last.sdk_http_response.headers if last.sdk_http_response else {}
        turn = [{"role": "model", "parts": said}]
        text = self._text(pieces)
        return Answer(text, calls, "tools" if calls else finish, counts, headers, turn, len(last.candidates))

    def answered(self, ask, answer, result):
        def response(call):
            named = {"id": call.id} if call.id else {}
            return {"functionResponse": {**named, "name": call.name, "response": {"result": result}}}

        results = {"role": "user", "parts": [response(call) for call in answer.calls]}
        return {**ask, "contents": [*ask["contents"], *answer.turn, results]}

    def count(self, ask, model):
        return self._asked(lambda: self.client.models.count_tokens(model=model, **ask)).total_tokens

    def vectors(self, ask, model):
        done = self._asked(lambda: self.client.models.embed_content(model=model, **ask))
        headers = done.sdk_http_response.headers if done.sdk_http_response else {}
        return [item.values for item in done.embeddings], None, headers

    def models(self):
        return [model.name.removeprefix("models/") for model in self._asked(lambda: list(self.client.models.list()))]

    def _asked(self, call):
        try:
            return call()
        except errors.APIError as error:
            kind = errors.ClientError if error.code < 500 else errors.ServerError
            assert isinstance(error, kind), error
            raise Failed(error, error.code) from error


CALLERS = {caller.name: caller for caller in (Chat, Responses, Messages, Gemini)}

// The four ways to ask that the official SDKs have, each with its answers and its errors in one form.
//
// An answer is { text, calls, finish, usage, headers, turn, choices }: usage counts the cache within the input and
// thinking within the output; `turn` is what the caller puts into the next request for it.

import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { ApiError, GoogleGenAI } from "@google/genai";
import OpenAI from "openai";

const OPTIONS = { maxRetries: 0, timeout: 20_000 };

/** A refusal, or a stream that broke: as the SDK raised it. */
export class Failed extends Error {
  constructor(error, status, seen = "") {
    super(`${status}: ${error?.message ?? error}`);
    this.status = status;
    /** The text that came before. */
    this.seen = seen;
  }
}

/** The headers as an object, whatever kind they are. */
const plainHeaders = (headers) => Object.fromEntries(headers?.entries?.() ?? Object.entries(headers ?? {}));

const KINDS = {
  400: "BadRequestError",
  401: "AuthenticationError",
  404: "NotFoundError",
  429: "RateLimitError",
};

/** A call of an SDK of OpenAI's or Anthropic's making, whose errors have classes of their own. */
async function asked(sdk, call) {
  try {
    return await call();
  } catch (error) {
    if (!(error instanceof sdk.APIError) || error.status === undefined) throw error;
    assert.ok(error instanceof sdk[KINDS[error.status] ?? "InternalServerError"], `${error.status}: ${error}`);
    throw new Failed(error, error.status);
  }
}

class Chat {
  name = "chat";

  constructor(url, apiKey) {
    this.client = new OpenAI({ apiKey, baseURL: `${url}/v1`, ...OPTIONS });
  }

  async send(ask, model) {
    const { data, response } = await asked(OpenAI, () => this.client.chat.completions.create({ model, ...ask }).withResponse());
    const [{ message, finish_reason }] = data.choices;
    return this.read(message, finish_reason, data.usage, response.headers, data.choices.length);
  }

  async stream(ask, model) {
    const options = { model, ...ask, stream: true, stream_options: { include_usage: true } };
    const { data, response } = await asked(OpenAI, () => this.client.chat.completions.create(options).withResponse());
    const calls = [];
    let [text, finish, usage] = ["", undefined, undefined];
    try {
      for await (const chunk of data) {
        usage = chunk.usage ?? usage;
        for (const { delta, finish_reason } of chunk.choices) {
          text += delta.content ?? "";
          finish = finish_reason ?? finish;
          for (const piece of delta.tool_calls ?? []) {
            calls[piece.index] ??= { id: piece.id, type: "function", function: { name: piece.function.name, arguments: "" } };
            calls[piece.index].function.arguments += piece.function.arguments ?? "";
          }
        }
      }
    } catch (error) {
      throw new Failed(error, undefined, text);
    }
    const message = { role: "assistant", content: text || null, ...(calls.length > 0 && { tool_calls: calls }) };
    return this.read(message, finish, usage, response.headers);
  }

  read(message, finish, usage, headers, choices = 1) {
    const calls = (message.tool_calls ?? []).map((call) => ({
      id: call.id,
      name: call.function.name,
      args: JSON.parse(call.function.arguments),
    }));
    const names = { stop: "stop", length: "length", tool_calls: "tools" };
    return {
      text: message.content ?? "",
      calls,
      finish: names[finish],
      usage: {
        input: usage.prompt_tokens,
        cached: usage.prompt_tokens_details?.cached_tokens ?? 0,
        output: usage.completion_tokens,
      },
      headers: plainHeaders(headers),
      turn: [message],
      choices,
    };
  }

  answered(ask, answer, result) {
    const results = answer.calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: result }));
    return { ...ask, messages: [...ask.messages, ...answer.turn, ...results] };
  }

  async vectors(ask, model) {
    const call = () => this.client.embeddings.create({ model, ...ask }).withResponse();
    const { data, response } = await asked(OpenAI, call);
    const usage = { input: data.usage.prompt_tokens, cached: 0, output: 0 };
    return { vectors: data.data.map((item) => item.embedding), usage, headers: plainHeaders(response.headers) };
  }

  async models() {
    return (await asked(OpenAI, () => this.client.models.list())).data.map((model) => model.id);
  }
}

class Responses extends Chat {
  name = "responses";

  async send(ask, model) {
    const { data, response } = await asked(OpenAI, () => this.client.responses.create({ model, ...ask }).withResponse());
    return this.readResponse(data, response.headers);
  }

  async stream(ask, model) {
    const call = () => this.client.responses.create({ model, ...ask, stream: true }).withResponse();
    const { data, response } = await asked(OpenAI, call);
    let [text, last] = ["", undefined];
    try {
      for await (const event of data) {
        if (event.type === "response.output_text.delta") text += event.delta;
        if (["response.completed", "response.incomplete"].includes(event.type)) last = event.response;
        if (["error", "response.failed"].includes(event.type)) throw new Failed(event, undefined, text);
      }
    } catch (error) {
      throw new Failed(error, undefined, text);
    }
    if (!last) throw new Failed("no end", undefined, text);
    const answer = this.readResponse(last, response.headers);
    assert.equal(answer.text, text);
    return answer;
  }

  readResponse(done, headers) {
    const calls = done.output
      .filter((item) => item.type === "function_call")
      .map((item) => ({ id: item.call_id, name: item.name, args: JSON.parse(item.arguments) }));
    const contents = done.output.filter((item) => item.type === "message").flatMap((item) => item.content);
    return {
      text: contents.map((content) => content.text ?? "").join(""),
      calls,
      finish: calls.length > 0 ? "tools" : { completed: "stop", incomplete: "length" }[done.status],
      usage: {
        input: done.usage.input_tokens,
        cached: done.usage.input_tokens_details.cached_tokens,
        output: done.usage.output_tokens,
      },
      headers: plainHeaders(headers),
      turn: done.output,
      choices: 1,
    };
  }

  answered(ask, answer, result) {
    const outputs = answer.calls.map((call) => ({ type: "function_call_output", call_id: call.id, output: result }));
    return { ...ask, input: [...ask.input, ...answer.turn, ...outputs] };
  }

  async count(ask, model) {
    return (await asked(OpenAI, () => this.client.responses.inputTokens.count({ model, ...ask }))).input_tokens;
  }

  // Embeddings are chat's.
  vectors = undefined;
}

class Messages {
  name = "messages";

  constructor(url, apiKey) {
    this.client = new Anthropic({ apiKey, baseURL: url, ...OPTIONS });
  }

  async send(ask, model) {
    const { data, response } = await asked(Anthropic, () => this.client.messages.create({ model, ...ask }).withResponse());
    return this.read(data, response.headers);
  }

  async stream(ask, model) {
    const stream = this.client.messages.stream({ model, ...ask });
    let text = "";
    stream.on("text", (piece) => (text += piece));
    try {
      const done = await stream.finalMessage();
      const answer = this.read(done, stream.response?.headers);
      assert.equal(answer.text, text);
      return answer;
    } catch (error) {
      if (!(error instanceof Anthropic.AnthropicError)) throw error;
      throw new Failed(error, error.status, text);
    }
  }

  read(done, headers) {
    const { usage } = done;
    const [cached, written] = [usage.cache_read_input_tokens ?? 0, usage.cache_creation_input_tokens ?? 0];
    return {
      text: done.content.map((block) => (block.type === "text" ? block.text : "")).join(""),
      calls: done.content
        .filter((block) => block.type === "tool_use")
        .map((block) => ({ id: block.id, name: block.name, args: block.input })),
      finish: { end_turn: "stop", max_tokens: "length", tool_use: "tools" }[done.stop_reason],
      usage: { input: usage.input_tokens + cached + written, cached, output: usage.output_tokens },
      headers: plainHeaders(headers),
      turn: [{ role: "assistant", content: done.content }],
      choices: 1,
    };
  }

  answered(ask, answer, result) {
    const results = answer.calls.map((call) => ({ type: "tool_result", tool_use_id: call.id, content: result }));
    return { ...ask, messages: [...ask.messages, ...answer.turn, { role: "user", content: results }] };
  }

  async count(ask, model) {
    return (await asked(Anthropic, () => this.client.messages.countTokens({ model, ...ask }))).input_tokens;
  }

  async models() {
    return (await asked(Anthropic, () => this.client.models.list())).data.map((model) => model.id);
  }
}

class Gemini {
  name = "gemini";

  constructor(url, apiKey) {
    this.client = new GoogleGenAI({ apiKey, httpOptions: { baseUrl: url, timeout: OPTIONS.timeout } });
  }

  async send(ask, model) {
    return this.read([await this.asked(() => this.client.models.generateContent(this.arguments(ask, model)))]);
  }

  async stream(ask, model) {
    const pieces = [];
    try {
      const stream = await this.client.models.generateContentStream(this.arguments(ask, model));
      for await (const piece of stream) pieces.push(piece);
    } catch (error) {
      throw new Failed(error, error.status, this.text(pieces));
    }
    if (!pieces.at(-1)?.candidates?.[0]?.finishReason) throw new Failed("no end", undefined, this.text(pieces));
    return this.read(pieces);
  }

  arguments(ask, model) {
    const config = { ...ask.generationConfig };
    for (const name of ["systemInstruction", "tools", "toolConfig"]) {
      if (ask[name]) config[name] = ask[name];
    }
    return { model, contents: ask.contents, config };
  }

  parts(pieces) {
    return pieces.flatMap((piece) => piece.candidates?.[0]?.content?.parts ?? []);
  }

  text(pieces) {
    return this.parts(pieces).map((part) => (part.thought ? "" : (part.text ?? ""))).join("");
  }

  read(pieces) {
    const [parts, last] = [this.parts(pieces), pieces.at(-1)];
    const calls = parts.filter((part) => part.functionCall).map(({ functionCall }) => functionCall);
    const usage = last.usageMetadata;
    return {
      text: this.text(pieces),
      calls,
      finish: calls.length > 0 ? "tools" : { STOP: "stop", MAX_TOKENS: "length" }[last.candidates[0].finishReason],
      usage: {
        input: usage.promptTokenCount,
        cached: usage.cachedContentTokenCount ?? 0,
        output: (usage.candidatesTokenCount ?? 0) + (usage.thoughtsTokenCount ?? 0),
      },
      headers: plainHeaders(last.sdkHttpResponse?.headers),
      turn: [{ role: "model", parts }],
      choices: last.candidates.length,
    };
  }

  answered(ask, answer, result) {
    const parts = answer.calls.map(({ id, name }) => ({
      functionResponse: { ...(id && { id }), name, response: { result } },
    }));
    return { ...ask, contents: [...ask.contents, ...answer.turn, { role: "user", parts }] };
  }

  async count(ask, model) {
    return (await this.asked(() => this.client.models.countTokens({ model, ...ask }))).totalTokens;
  }

  async vectors(ask, model) {
    const done = await this.asked(() => this.client.models.embedContent({ model, ...ask }));
    return { vectors: done.embeddings.map((item) => item.values), headers: plainHeaders(done.sdkHttpResponse?.headers) };
  }

  async models() {
    const names = [];
    for await (const model of await this.asked(() => this.client.models.list())) names.push(model.name);
    return names.map((name) => name.replace(/^models\//, ""));
  }

  async asked(call) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      throw new Failed(error, error.status);
    }
  }
}

export const CALLERS = { chat: Chat, responses: Responses, messages: Messages, gemini: Gemini };

//! Realtime sessions of the mock: the events of OpenAI's reference, in their order, as a script wants them.

use super::Shared;
use super::stats::{Ending, Outcome};
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Pieces of a response of which nothing is said.
const DELTAS_DEFAULT: u64 = 3;
/// Longest wait for the next piece.
const STALL_MAX: Duration = Duration::from_secs(600);
/// Responses that wait for the one under way.
const WAITING_MAX: usize = 8;

/// How sessions go. Every field is optional.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Realtime {
    /// The `usage` of one response after the other; the last one counts for all that follow, and `null` is none.
    pub usages: Vec<Value>,
    /// Pieces of a response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deltas: Option<u64>,
    /// Responses are spoken, with a transcript.
    pub audio: bool,
    /// Wait before each piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_ms: Option<u64>,
    /// So many appended pieces of audio are a turn, which is answered unasked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn_after: Option<u64>,
    /// Close the connection after so many pieces of a response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_after: Option<u64>,
    /// Fall silent after so many pieces, whatever is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall_after: Option<u64>,
    /// Answer each `response.create` with an error of this code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refuses: Option<String>,
    /// The beta's names of events.
    pub beta: bool,
}

/// A response under way.
struct Responding {
    number: u64,
    told: u64,
    next_at: Instant,
}

struct Session<'s> {
    socket: WebSocketStream<&'s mut TcpStream>,
    script: Realtime,
    model: String,
    events: u64,
    responses: u64,
    appended: u64,
    terms: Value,
    responding: Option<Responding>,
    /// Responses that were asked for meanwhile.
    waiting: VecDeque<()>,
}

/// Serves a session on a connection whose handshake was answered. `rest` came behind it.
pub(super) async fn serve(
    stream: &mut TcpStream,
    rest: Vec<u8>,
    script: Realtime,
    model: String,
    head: &[u8],
    shared: &Shared,
) -> Result<(), Error> {
    let socket = WebSocketStream::from_partially_read(stream, rest, Role::Server, None).await;
    let terms = json!({
        "type": "realtime", "object": "realtime.session", "id": "sess_mock", "model": model,
        "output_modalities": [if script.audio { "audio" } else { "text" }], "instructions": "Be brief.", "tools": [],
        "tool_choice": "auto", "max_output_tokens": "inf", "tracing": null, "prompt": null,
        "audio": {
            "input": {"format": {"type": "audio/pcm", "rate": 24000}, "transcription": null, "noise_reduction": null,
                      "turn_detection": {"type": "server_vad", "create_response": true, "interrupt_response": true}},
            "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin", "speed": 1},
        },
        "include": null,
    });
    let (responding, waiting) = (None, VecDeque::new());
    let mut session =
        Session { socket, script, model, events: 0, responses: 0, appended: 0, terms, responding, waiting };
    let terms = session.terms.clone();
    session.tell("session.created", json!({"session": terms})).await?;
    loop {
        let next_at = session.responding.as_ref().map_or(Instant::now() + STALL_MAX, |responding| responding.next_at);
        tokio::select! {
            message = session.socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    shared.counters.begin(head, text.as_bytes());
                    let outcome = Outcome { model: Some(session.model.clone()), ..Outcome::default() };
                    shared.counters.end(&outcome, Ending::Finished);
                    session.take(&text).await?;
                }
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
            },
            () = sleep_until(next_at) => session.go_on().await?,
        }
    }
}

impl Session<'_> {
    async fn tell(&mut self, kind: &str, fields: Value) -> Result<(), Error> {
        self.events += 1;
        let mut event = json!({"type": kind, "event_id": format!("event_mock{}", self.events)});
        if let (Some(event), Value::Object(fields)) = (event.as_object_mut(), fields) {
            event.extend(fields);
        }
        self.socket.send(Message::text(event.to_string())).await
    }

    async fn take(&mut self, text: &str) -> Result<(), Error> {
        let event: Value = serde_json::from_str(text).unwrap_or_default();
        match event["type"].as_str().unwrap_or_default() {
            "session.update" => {
                if let (Some(terms), Value::Object(changed)) = (self.terms.as_object_mut(), &event["session"]) {
                    terms.extend(changed.clone());
                }
                let terms = self.terms.clone();
                self.tell("session.updated", json!({"session": terms})).await
            }
            "conversation.item.create" => {
                let mut item = event["item"].clone();
                item["id"] = json!(format!("item_mock{}", self.events));
                self.tell("conversation.item.added", json!({"previous_item_id": null, "item": item})).await?;
                self.tell("conversation.item.done", json!({"previous_item_id": null, "item": item})).await
            }
            "input_audio_buffer.append" => {
                self.appended += 1;
                match self.script.turn_after {
                    Some(turn) if self.appended.is_multiple_of(turn.max(1)) => {
                        let item = format!("item_mock{}", self.events);
                        let started = json!({"audio_start_ms": 0, "item_id": item});
                        self.tell("input_audio_buffer.speech_started", started).await?;
                        let stopped = json!({"audio_end_ms": 100, "item_id": item});
                        self.tell("input_audio_buffer.speech_stopped", stopped).await?;
                        let committed = json!({"previous_item_id": null, "item_id": item});
                        self.tell("input_audio_buffer.committed", committed).await?;
                        self.begin().await
                    }
                    _ => Ok(()),
                }
            }
            "input_audio_buffer.commit" => {
                let committed = json!({"previous_item_id": null, "item_id": format!("item_mock{}", self.events)});
                self.tell("input_audio_buffer.committed", committed).await
            }
            "response.create" => match self.script.refuses.clone() {
                Some(code) => {
                    let error = json!({"type": "invalid_request_error", "code": code, "message": "Refused.",
                                       "param": null, "event_id": event["event_id"]});
                    self.tell("error", json!({"error": error})).await
                }
                None => self.begin().await,
            },
            "response.cancel" => match self.responding.take() {
                Some(responding) if self.script.stall_after.is_some() => {
                    self.responding = Some(responding);
                    Ok(())
                }
                Some(responding) => self.end(&responding, "cancelled").await,
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    async fn begin(&mut self) -> Result<(), Error> {
        if self.responding.is_some() {
            if self.waiting.len() < WAITING_MAX {
                self.waiting.push_back(());
            }
            return Ok(());
        }
        self.responses += 1;
        let number = self.responses;
        let response = self.response(number, "in_progress", Value::Null);
        self.tell("response.created", json!({"response": response})).await?;
        let item = json!({"id": format!("item_resp{number}"), "object": "realtime.item", "type": "message",
                          "status": "in_progress", "role": "assistant", "content": []});
        let added = json!({"response_id": id(number), "output_index": 0, "item": item});
        self.tell("response.output_item.added", added).await?;
        self.responding = Some(Responding { number, told: 0, next_at: Instant::now() + self.gap() });
        Ok(())
    }

    fn gap(&self) -> Duration {
        Duration::from_millis(self.script.gap_ms.unwrap_or(0))
    }

    /// The next piece of the response under way, or its end.
    async fn go_on(&mut self) -> Result<(), Error> {
        let Some(mut responding) = self.responding.take() else { return Ok(()) };
        if self.script.cut_after == Some(responding.told) {
            return Err(Error::ConnectionClosed);
        }
        if self.script.stall_after == Some(responding.told) {
            responding.next_at = Instant::now() + STALL_MAX;
            self.responding = Some(responding);
            return Ok(());
        }
        if responding.told == self.script.deltas.unwrap_or(DELTAS_DEFAULT) {
            self.end(&responding, "completed").await?;
            return match self.waiting.pop_front() {
                Some(()) => Box::pin(self.begin()).await,
                None => Ok(()),
            };
        }
        let piece = json!({"response_id": id(responding.number), "item_id": format!("item_resp{}", responding.number),
                           "output_index": 0, "content_index": 0, "delta": " word"});
        let (text, transcript, audio) = match self.script.beta {
            true => ("response.text.delta", "response.audio_transcript.delta", "response.audio.delta"),
            false => {
                ("response.output_text.delta", "response.output_audio_transcript.delta", "response.output_audio.delta")
            }
        };
        if self.script.audio {
            self.tell(transcript, piece.clone()).await?;
            let mut piece = piece;
            // A tenth of a second: 4,800 bytes of silence.
            piece["delta"] = json!("A".repeat(6_400));
            self.tell(audio, piece).await?;
        } else {
            self.tell(text, piece).await?;
        }
        responding.told += 1;
        responding.next_at = Instant::now() + self.gap();
        self.responding = Some(responding);
        Ok(())
    }

    async fn end(&mut self, responding: &Responding, status: &str) -> Result<(), Error> {
        let usages = &self.script.usages;
        let place = usize::try_from(responding.number - 1).unwrap_or(usize::MAX);
        let usage = usages.get(place).or(usages.last()).cloned().unwrap_or_else(|| {
            json!({"total_tokens": 23, "input_tokens": 20, "output_tokens": 3,
                   "input_token_details": {"text_tokens": 20, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 0},
                   "output_token_details": {"text_tokens": 3, "audio_tokens": 0}})
        });
        let response = self.response(responding.number, status, usage);
        self.tell("response.done", json!({"response": response})).await
    }

    fn response(&self, number: u64, status: &str, usage: Value) -> Value {
        json!({
            "object": "realtime.response", "id": id(number), "status": status, "status_details": null, "output": [],
            "conversation_id": "conv_mock", "output_modalities": [if self.script.audio { "audio" } else { "text" }],
            "max_output_tokens": "inf", "usage": usage, "metadata": null,
        })
    }
}

fn id(number: u64) -> String {
    format!("resp_mock{number}")
}

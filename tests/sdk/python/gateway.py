"""The mock upstream and the gateway as processes, and what tests ask of them beside the SDK's calls."""

import json
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.request
from decimal import Decimal
from pathlib import Path

import openai

CONFIG = """
[[upstreams]]
name = "mock"
provider = "openai-compatible"
base_url = "{upstream}/v1"
api_key = "${{MOCK_KEY}}"

[[routes]]
model = "mock-model"
upstreams = ["mock"]

[[prices]]
model = "mock-model"
input_per_million = "1.00"
output_per_million = "2.00"

[[routes]]
model = "mock-embed"
upstreams = ["mock"]

[[prices]]
model = "mock-embed"
input_per_million = "0.02"
"""

INPUT_NANOS, OUTPUT_NANOS, EMBED_NANOS = 1000, 2000, 20
UPSTREAM_SECRET = "upstream-secret"
START_SECONDS_MAX = 30
WAIT_SECONDS_MAX = 10


def cost_of(usage):
    """What a usage costs at the prices above, in USD."""
    return usd(usage.prompt_tokens * INPUT_NANOS + usage.completion_tokens * OUTPUT_NANOS)


def usd(nanos):
    return Decimal(nanos) / 10**9


def eventually(what, condition):
    """Waits for what happens after an answer's last byte; a condition that never holds fails the test."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_SECONDS_MAX} s: {what}"
        time.sleep(0.02)


def get_json(url, key=None):
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {key}"} if key else {})
    with urllib.request.urlopen(request, timeout=WAIT_SECONDS_MAX) as answer:
        # Decimals: a float would hide a difference of a nano-USD.
        return json.loads(answer.read(), parse_float=Decimal)


class Process:
    """A server that says where it listens on its standard output."""

    def __init__(self, command, marker, environment=None):
        # Nothing is inherited: a credential in the environment would give the gateway further upstreams.
        environment = {"PATH": os.environ["PATH"], "RUST_LOG": "error", **(environment or {})}
        self.output = ""
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        deadline = time.monotonic() + START_SECONDS_MAX
        while marker not in self.output:
            line = self._process.stdout.readline()
            if not line or time.monotonic() > deadline:
                self._process.kill()
                raise RuntimeError(f"{command[0]} did not say {marker!r} but {self.output!r}")
            self.output += line
        self.url = re.search(re.escape(marker) + r" (http://\S+)", self.output)[1]

    def is_alive(self):
        return self._process.poll() is None

    def stop(self):
        """Asks it to stop; its exit code."""
        if self.is_alive():
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(WAIT_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._process.stdout.close()


class Mock(Process):
    def __init__(self):
        command = [os.environ["MOCK_BIN"], "--listen", "127.0.0.1:0", "--key", UPSTREAM_SECRET]
        super().__init__(command, "mock listening on")

    def play(self, script):
        """What requests get that bring no script, as those of other dialects cannot; `None` is the usual answer."""
        body = json.dumps(script).encode()
        request = urllib.request.Request(f"{self.url}/mock/script", data=body, method="POST")
        urllib.request.urlopen(request, timeout=WAIT_SECONDS_MAX).close()

    def reset(self):
        """Forgets what it was asked."""
        request = urllib.request.Request(f"{self.url}/mock/reset", data=b"", method="POST")
        urllib.request.urlopen(request, timeout=WAIT_SECONDS_MAX).close()

    def stats(self):
        return get_json(f"{self.url}/mock/stats")

    def requests(self):
        return self.stats()["requests"]

    def last_request(self):
        return self.stats()["recent"][-1]


class Gateway(Process):
    """A gateway over a mock; without one, as it starts with no configuration at all."""

    def __init__(self, mock=None, text=CONFIG):
        self._folder = tempfile.TemporaryDirectory(prefix="tollgate-sdk-")
        self.data = Path(self._folder.name) / "data"
        self.mock = mock
        command = [os.environ["TOLLGATE_BIN"], "serve", "--data-dir", str(self.data), "--listen", "127.0.0.1:0"]
        if mock:
            config = Path(self._folder.name) / "tollgate.toml"
            config.write_text(text.format(upstream=mock.url))
            command += ["--config", str(config)]
        super().__init__(command, "tollgate listening on", {"MOCK_KEY": UPSTREAM_SECRET})

    def first_key(self):
        """The key that a first start shows."""
        return re.search(r"^\s+key\s+(sk-\S+)", self.output, re.MULTILINE)[1]

    def cli(self, *arguments):
        """What a command prints."""
        command = [os.environ["TOLLGATE_BIN"], *arguments, "--data-dir", str(self.data)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS_MAX)
        assert done.returncode == 0, f"{' '.join(arguments)}: exit {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def create_account(self, name, balance="5.00"):
        self.cli("account", "create", name, "--balance", balance)

    def create_key(self, account, name, *options):
        """Its id and its secret."""
        created = json.loads(self.cli("key", "create", "--account", account, "--name", name, *options, "--json"))
        return created["id"], created["key"]

    def verify_ledger(self):
        return json.loads(self.cli("ledger", "verify", "--json"))

    def client(self, key, **options):
        return openai.OpenAI(**self._client_options(key, options))

    def async_client(self, key, **options):
        return openai.AsyncOpenAI(**self._client_options(key, options))

    def _client_options(self, key, options):
        # A retry would hide the failure that a test is about.
        return {"api_key": key, "base_url": f"{self.url}/v1", "max_retries": 0, "timeout": 20, **options}

    def stop(self):
        try:
            return super().stop()
        finally:
            self._folder.cleanup()


class Bed:
    """What all tests share: one mock, one gateway, one account with a key without restrictions."""

    mock = None
    gateway = None
    key = None

    @classmethod
    def start(cls):
        cls.mock = Mock()
        cls.gateway = Gateway(cls.mock)
        cls.gateway.create_account("sdk")
        _, cls.key = cls.gateway.create_key("sdk", "main")

    @classmethod
    def client(cls, **options):
        return cls.gateway.client(cls.key, **options)

    @classmethod
    def new_key(cls, name, *options):
        return cls.gateway.create_key("sdk", name, *options)

    @classmethod
    def stop(cls):
        for process in (cls.gateway, cls.mock):
            if process and process.is_alive():
                process.stop()


def chat(client, script=None, text="Say it.", **options):
    """A short chat; `script` is what the mock shall do."""
    messages = [{"role": "user", "content": text}]
    extra = {"mock": script} if script else {}
    extra |= options.pop("extra_body", {})
    return client.chat.completions.create(model="mock-model", messages=messages, extra_body=extra, **options)

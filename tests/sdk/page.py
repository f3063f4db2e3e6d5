"""Makes `docs/dialects.md` of what the runners of all SDKs found, and fails where the page says something else.

`MATRIX_RESULTS` names the folder with what they found. With `UPDATE_DIALECTS=1` the page is written anew.
"""

import json
import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs/dialects.md"
RUNNERS = ["python", "node"]
CALLERS = {
    "chat": "OpenAI chat completions",
    "responses": "OpenAI Responses",
    "messages": "Anthropic Messages",
    "gemini": "Google Gemini",
}
UPSTREAMS = {"openai": "OpenAI", "anthropic": "Anthropic", "gemini": "Google"}
SDKS = ["anthropic", "google-genai", "openai"]

INTRODUCTION = """# Dialects and providers

Which dialect in reaches which provider out, and what of it. This page is generated: every line was tried by the official
SDKs through a gateway over scripted providers, which refuse what the real ones refuse. The list of what is tried is
`tests/sdk/scenarios.json`, and `cargo xtask test` fails where this page says something else than its runs found;
`UPDATE_DIALECTS=1 cargo xtask test` writes it anew.

Tried with {sdks}.

*yes*: it works, with usage and price exact. *yes, without `x`*: it works, and `x-tollgate-dropped` names what the provider
has no word for. *partly*: it works, but for what the note says. *no (status)*: it is refused with that status, in the shape
of the caller's dialect, before it costs anything. *–*: the caller's dialect has no such thing. A failure is told as an
error of its SDK's own kind, with the status of the table.

What a provider is asked in:

{asked}
"""


def main():
    scenarios = json.loads((HERE / "scenarios.json").read_text())
    folder = Path(os.environ["MATRIX_RESULTS"])
    found = {}
    for runner in RUNNERS:
        for result in json.loads((folder / f"{runner}.json").read_text()):
            key = tuple(result.pop(name) for name in ("scenario", "caller", "upstream"))
            found.setdefault(key, {})[runner] = result
    problems = [f"{key}: {by_runner}" for key, by_runner in found.items() if not agree(by_runner)]
    wanted = [(s["name"], c, u) for s in scenarios["scenarios"] for c in CALLERS for u in UPSTREAMS]
    problems += [f"{key}: nobody tried it" for key in wanted if key not in found]
    if problems:
        sys.exit("The runners found different things, or not all of them ran:\n" + "\n".join(problems))
    page = written(scenarios, {key: by_runner[RUNNERS[0]] for key, by_runner in found.items()})
    if os.environ.get("UPDATE_DIALECTS") == "1":
        PAGE.write_text(page)
        print(f"wrote docs/{PAGE.name}")
    elif not PAGE.exists() or PAGE.read_text() != page:
        sys.exit(f"docs/{PAGE.name} is not what the SDKs found: UPDATE_DIALECTS=1 cargo xtask test writes it anew")
    else:
        print(f"docs/{PAGE.name} is what the SDKs found in {len(found)} cases")


def agree(by_runner):
    return set(by_runner) == set(RUNNERS) and len({json.dumps(found, sort_keys=True) for found in by_runner.values()}) == 1


def written(scenarios, found):
    asked = [["", *UPSTREAMS.values()]]
    for caller, title in CALLERS.items():
        asked.append([title, *(asked_in(found["chat", caller, upstream]["asked_in"], caller) for upstream in UPSTREAMS)])
    parts = [INTRODUCTION.format(sdks=sdks(), asked=table(asked))]
    for caller, title in CALLERS.items():
        notes, rows, failures = [], [["", *UPSTREAMS.values()]], [["Failures", *UPSTREAMS.values()]]
        for scenario in scenarios["scenarios"]:
            name, expect = scenario["name"], scenario["expect"]
            told = str(expect.get("error", "within the stream" if "broken" in expect else "yes"))
            asked = [(found[name, caller, upstream], (name, caller, upstream)) for upstream in UPSTREAMS]
            cells = [cell(scenarios, result, key, told, notes) for result, key in asked]
            (rows if told == "yes" else failures).append([scenario["title"], *cells])
        parts.append(f"## {title}\n\n{table(rows)}\n\n{table(failures)}\n")
        if notes:
            parts.append("\n".join(f"{number}. {note}" for number, note in enumerate(notes, 1)) + "\n")
    return "\n".join(parts)


def asked_in(dialect, caller):
    return "the same, byte for byte" if dialect == caller else CALLERS[dialect]


def cell(scenarios, result, asked, told, notes):
    """What one cell says, with a number of its reason; `told`: what it says where all is as expected."""
    names = ("scenario", "caller", "upstream")
    fits = lambda exception: all(exception.get(name, value) == value for name, value in zip(names, asked))
    reason = next((exception["reason"] for exception in scenarios["exceptions"] if fits(exception)), None)
    if reason and reason not in notes:
        notes.append(reason)
    number = f" [{notes.index(reason) + 1}]" if reason else ""
    match result["outcome"]:
        case "supported":
            return f"{told}{number}"
        case "partly":
            return f"partly{number}"
        case "drops":
            return "yes, without " + ", ".join(f"`{name}`" for name in result["drops"]) + number
        case "refused":
            return f"no ({result['status']}){number}"
        case _:
            return f"–{number}"


def table(rows):
    head, *rest = rows
    lines = [f"| {' | '.join(row)} |" for row in rest]
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *lines])


def sdks():
    """Names and versions, as they are installed."""
    python = re.findall(r"^(.+)==(.+)$", (HERE / "python/requirements.txt").read_text(), re.MULTILINE)
    node = json.loads((HERE / "node/package.json").read_text())["dependencies"].items()
    named = [f"{name} {version}" for name, version in sorted(python) if name in SDKS]
    return f"{', '.join(named)} (Python) and {', '.join(f'{name} {version}' for name, version in sorted(node))} (Node)"


if __name__ == "__main__":
    main()

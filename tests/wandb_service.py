"""A stand-in for W&B's service, called so: it takes what W&B's own client sends of runs, and tells it what it has when a run is resumed."""

import gzip
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.local_http import local_http

__all__ = ["WandbService", "serve_wandb"]

_ARTIFACT = {"id": "1", "state": "COMMITTED", "artifactSequence": {"id": "1", "latestArtifact": {"id": "1", "versionIndex": 0}}}
_PROJECT = {"id": "1", "name": "lab", "entity": {"id": "1", "name": "team"}}


@dataclass
class WandbService:
    """What the service has.

    Attributes:
        url: To be told to the client as ``WANDB_BASE_URL``.
        streams: Of each run, the lines of each of its streams, where the client said that they belong.
        uploaded: Names of files that were uploaded.
    """

    url: str = ""
    streams: dict[str, dict[str, dict[int, str]]] = field(default_factory=dict)
    uploaded: list[str] = field(default_factory=list)

    def history(self, run: str) -> list[dict[str, Any]]:
        """Return the rows of a run in their order."""
        lines = self.streams[run]["wandb-history.jsonl"]
        assert sorted(lines) == list(range(len(lines)))
        return [json.loads(lines[number]) for number in sorted(lines)]

    def take(self, run: str, files: dict[str, dict[str, Any]]) -> None:
        """Take lines of streams; a line is put where the client says, over what is there."""
        for name, part in files.items():
            lines = self.streams.setdefault(run, {}).setdefault(name, {})
            lines.update({part["offset"] + number: line for number, line in enumerate(part["content"])})

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Return what a GraphQL operation is told."""
        if operation == "UpsertBucket":
            bucket = {
                "id": "1",
                "name": variables["name"],
                "displayName": "run",
                "config": "{}",
                "project": _PROJECT,
                "historyLineCount": 0,
            }
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if operation == "RunResumeStatus":
            return {"model": {**_PROJECT, "bucket": self._resumed(variables["name"])}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
        if operation in ("CreateArtifact", "CommitArtifact", "UseArtifact"):
            return {f"{operation[0].lower()}{operation[1:]}": {"artifact": _ARTIFACT}}
        return {}

    def _resumed(self, run: str) -> dict[str, Any] | None:
        if run not in self.streams:
            return None
        counts = {name: len(lines) for name, lines in self.streams[run].items()}
        rows = [self.streams[run]["wandb-history.jsonl"][number] for number in sorted(self.streams[run].get("wandb-history.jsonl", ()))]
        summary = self.streams[run].get("wandb-summary.json", {0: "{}"})[0]
        return {
            "name": run,
            "displayName": "run",
            "historyLineCount": len(rows),
            "eventsLineCount": counts.get("wandb-events.jsonl", 0),
            "logLineCount": 0,
            "historyTail": json.dumps(rows[-1:]),
            "eventsTail": "[]",
            "summaryMetrics": summary,
            "config": "{}",
            "wandbConfig": '{"t": 1}',
            "tags": [],
        }


@contextmanager
def serve_wandb() -> Iterator[WandbService]:
    """Serve on a free port of this machine."""
    service = WandbService()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            told: dict[str, Any] = {}
            if self.path == "/graphql":
                asked = json.loads(body)
                operation = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
                told = {"data": service.answer(operation[1] if operation else "", asked.get("variables") or {})}
            elif found := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
                service.take(found[1], json.loads(body).get("files") or {})
            else:
                service.uploaded.append(self.path)
            answer = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST

        def log_message(self, *arguments: Any) -> None:
            """A test has nothing to say of requests."""

    with local_http(Handler) as port:
        service.url = f"http://127.0.0.1:{port}"
        yield service

"""A whole client of Errand: sign in by a link once, then send a task and follow it to its branch.

    pip install websockets
    python client.py 'http://127.0.0.1:8420/#code=…'        # the link that `errand up` shows
    python client.py https://github.com/you/project 'Fix the failing test'

It has what every client needs: an idempotency key for each command, which is sent again until it is accepted; a cursor,
so that after a break nothing is missed and nothing comes twice; a pause before each reconnect. See docs/client.md.
"""

import json
import os
import random
import socket
import sys
import time
import urllib.request
import uuid
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

ACCOUNT = Path(os.environ.get("ERRAND_CLIENT", "errand-client.json"))


def sign_in(link):
    """Exchange the link's one-time code for a token of this device's own, and keep it where only we can read it."""
    parts = urlsplit(link)
    server = f"{parts.scheme}://{parts.netloc}"
    body = json.dumps({"code": parse_qs(parts.fragment)["code"][0], "device_name": socket.gethostname()}).encode()
    request = urllib.request.Request(f"{server}/api/sign-in", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        token = json.load(answer)["token"]
    with open(os.open(ACCOUNT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"server": server, "token": token}, file)
    print(f"Signed in to {server}.")


class Client:
    """One task, over as many connections as it takes."""

    def __init__(self, account, submit):
        self.account = account
        self.outbox = {submit["key"]: submit}  # what the server has not accepted yet
        self.task = ""
        self.cursor = 0  # the sequence of the last event that we saw
        self.question = None
        self.pause = 0.5
        self.exit_code = None

    def run(self):
        while self.exit_code is None:
            try:
                self.converse()
            except (OSError, WebSocketException) as error:
                print(f"The connection broke: {error}", file=sys.stderr)
            if self.exit_code is None:
                time.sleep(self.pause * random.uniform(0.5, 1.5))  # not every client of a server at the same moment
                self.pause = min(self.pause * 2, 30)
        return self.exit_code

    def converse(self):
        with connect(self.account["server"].replace("http", "ws", 1) + "/api/live", max_size=None) as self.socket:
            self.send(type="sign_in", token=self.account["token"])
            is_live = False
            for text in self.socket:
                frame = json.loads(text)
                is_live = is_live or frame["type"] == "caught_up"
                self.take(frame)
                if self.exit_code is not None:
                    return
                if is_live and self.question:  # not while the past is replayed: it may be answered in there
                    self.ask()

    def take(self, frame):
        match frame:
            case {"type": "signed_in"}:
                for notice in frame.get("notices", []):
                    print(notice, file=sys.stderr)
                self.watch()
                for command in self.outbox.values():
                    self.send(**command)
            case {"type": "accepted"}:
                self.outbox.pop(frame["key"], None)
                if not self.task:
                    self.task = frame["task"]
                    print(f"Task {self.task}")
                    self.watch()
            case {"type": "caught_up"}:
                self.pause = 0.5
            case {"type": "decision_seen", "decision": decision}:
                self.cursor = frame["sequence"]
                for event in decision.get("events", []):
                    self.see(event)
            case {"type": "journal_seen", "entry": {"event": event}}:
                self.cursor = frame["sequence"]
                self.see(event)
            case {"type": "refused", "code": "unavailable"}:
                self.socket.close()  # and again after the pause, with the same key
            case {"type": "refused"} | {"type": "closing", "come_back": False}:
                self.end(1, frame["reason"])
            case {"type": "receipt_seen", "receipt": {"status": "rejected"} as receipt}:
                print(f"Rejected: {receipt['reason']}", file=sys.stderr)

    def see(self, event):
        match event:
            case {"type": "step_started", "action": {"type": "tool_call"} as call}:
                print(f"{call['name']} {json.dumps(call['input'])[:100]}")
            case {"type": "question_raised"}:
                self.question = event["question"]
            case {"type": "question_answered"}:
                self.question = None
            case {"type": "turn_ended"}:
                print(f"{event['outcome']}: {event.get('summary') or event.get('reason', '')}")
                published = event.get("published") or {"branch": "none, nothing was changed"}
                self.end(0 if event["outcome"] == "succeeded" else 1, f"Branch: {published['branch']}")

    def ask(self):
        question, self.question = self.question, None
        text = input(f"{question['text']} {' / '.join(question.get('choices', []))}\n> ")
        key = str(uuid.uuid4())
        answer = {"type": "answer", "key": key, "task": self.task, "question": question["id"], "text": text}
        self.outbox[key] = answer
        self.send(**answer)

    def watch(self):
        if self.task:
            self.send(type="watch_task", task=self.task, cursor=self.cursor, output=False)

    def send(self, **frame):
        self.socket.send(json.dumps(frame))

    def end(self, exit_code, text):
        print(text, file=sys.stderr if exit_code else sys.stdout)
        self.exit_code = exit_code


if __name__ == "__main__":
    if len(sys.argv) == 2:
        sys.exit(sign_in(sys.argv[1]))
    submit = {"type": "submit", "key": str(uuid.uuid4()), "repository": sys.argv[1], "prompt": sys.argv[2]}
    sys.exit(Client(json.loads(ACCOUNT.read_text()), submit).run())

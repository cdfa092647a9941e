"""What the server answered, line by line, so that two servers can be compared."""

import re

import grpc
from pymilvus import MilvusException

ID = re.compile(r"\d{15,}")


class Transcript:
    """Ids are renamed in the order in which they appear; what depends on the clock is left out."""

    def __init__(self):
        self.lines = []
        self.ids = {}

    def say(self, what, value):
        line = f"{what}: {self.without_ids(str(value))}"
        self.lines.append(line)
        print(f"    {line[:200]}", flush=True)

    def without_ids(self, text):
        return ID.sub(
            lambda found: self.ids.setdefault(found.group(), f"#{len(self.ids) + 1}"), text)

    def refused(self, what, call, *arguments, **options):
        """A call that the server must not carry out: the code and the words of its refusal."""
        try:
            answer = call(*arguments, **options)
        except MilvusException as error:
            self.say(what, f"refused with {error.code}: {first_sentence(error.message)}")
        except grpc.RpcError as error:
            self.say(what, f"refused with {error.code().name}: {first_sentence(error.details())}")
        else:
            self.say(what, f"accepted with {answer}")

    def text(self):
        return "\n".join(self.lines) + "\n"


def first_sentence(text):
    """Without stacks and without the addresses of a process."""
    return re.sub(r"0x[0-9a-f]+", "0x", str(text).split("\n", 1)[0])[:300]

# SPDX-License-Identifier: MIT
"""Printers for gdb, on a stopped process or a core:

    (gdb) source scripts/gdb/spoke.py
    (gdb) print *p              one line for a message, pipe, operation, socket, endpoint or engine
    (gdb) print/r *p            the struct as it is
    (gdb) spoke                 every engine and socket that is open, with addresses and pipes

Nothing of the program is called, so that they work on a core."""
import gdb
import gdb.printing

SOCKET_HANDLE = 2  # SPK_HANDLE_SOCKET


def error_name(number):
    """SPOKE_EPEER for -33."""
    if number == 0:
        return "0"
    for field in gdb.lookup_type("enum spoke_error").fields():
        if field.enumval == number:
            return field.name
    return str(number)


def enum_name(enum, value):
    """The word for a number that is stored in a byte."""
    for field in gdb.lookup_type(enum).fields():
        if field.enumval == int(value):
            return field.name
    return "?%d" % int(value)


def text(value):
    """A char pointer or array, up to its NUL."""
    return value.string(errors="replace") if value.type.code == gdb.TYPE_CODE_ARRAY or int(value) else "?"


def each(head, type_name, member):
    """The owners of the links of a list."""
    owner = gdb.lookup_type(type_name)
    offset = next(f.bitpos // 8 for f in owner.fields() if f.name == member)
    link = head["next"]
    while link != head.address and int(link) != 0:
        yield (link.cast(gdb.lookup_type("char").pointer()) - offset).cast(owner.pointer()).dereference()
        link = link["next"]


def first_bytes(start, size):
    shown = min(int(size), 16)
    data = bytes(gdb.selected_inferior().read_memory(int(start), shown)) if shown else b""
    dots = "…" if int(size) > shown else ""
    return data.hex(" ") + dots, "".join(chr(c) if 32 <= c < 127 else "." for c in data) + dots


class Message:
    def __init__(self, m):
        self.m = m

    def to_string(self):
        m = self.m
        header = first_bytes(m["header"], m["header_size"])[0]
        body, letters = first_bytes(m["body"], m["size"])
        return 'message{refs %d, pipe %d, header %d [%s], body %d %s [%s] "%s"}' % (
            int(m["refs"]), int(m["pipe"]), int(m["header_size"]), header, int(m["size"]),
            "in a chunk" if int(m["chunk"]) else "inline", body, letters)


class Pipe:
    def __init__(self, p):
        self.p = p

    def to_string(self):
        p = self.p
        url = text(p["endpoint"]["url"]["text"]) if int(p["endpoint"]) else "?"
        notes = [note for note, holds in (
            ("writable", int(p["writable"])), ("holds a message back", int(p["held"])),
            ("reason " + error_name(int(p["reason"])), int(p["reason"]))) if holds]
        return "pipe{%d, %s, %s%s}" % (int(p["id"]), p["state"], url, "".join(", " + n for n in notes))


class Operation:
    def __init__(self, op):
        self.op = op

    def to_string(self):
        op = self.op
        return "op{%s %s, handle %d%s, answers %s}" % (
            enum_name("enum spk_op_kind", op["kind"]), enum_name("enum spk_op_state", op["state"]),
            int(op["handle"]), ", cancelled" if int(op["cancelled"]) else "",
            str(op["fn"]).split("<")[-1].rstrip(">") if int(op["fn"]) else "nobody")


class Endpoint:
    def __init__(self, ep):
        self.ep = ep

    def to_string(self):
        ep = self.ep
        error = int(ep["last_error"]) if int(ep["is_dialer"]) else 0
        return "%s{%s, %s%s}" % ("dialer" if int(ep["is_dialer"]) else "listener", text(ep["url"]["text"]),
                                 ep["state"], ", last error " + error_name(error) if error else "")


class Socket:
    def __init__(self, s):
        self.s = s

    def to_string(self):
        s = self.s
        name = text(s["name"])
        return "socket{%s%s%s, %s, %d pipes, %d received and waiting, %d callers inside}" % (
            text(s["protocol"]["name"]), " raw" if int(s["raw"]) else "", ' "%s"' % name if name else "",
            s["state_now"], int(s["pipe_count"]), int(s["recv_queue"]["count"]), int(s["callers"]))


class Engine:
    def __init__(self, e):
        self.e = e

    def to_string(self):
        e = self.e
        state = "closed" if int(e["closed"]) else "closing" if int(e["closing"]) else \
            "asleep" if int(e["asleep"]) else "spinning" if int(e["spinning"]) else "awake"
        info = e["info"]
        return "engine{%s, %s, %s, %d operations in flight, %d hot, %d turns, %d sleeps}" % (
            text(e["backend"]["name"]), "shared" if int(e["shared"]) else "owned", state,
            int(e["ops_in_flight"]), int(e["hot_count"]), int(info["turns"]), int(info["sleeps"]))


class Spoke(gdb.Command):
    """List the engines and sockets that are open, with their addresses and pipes."""

    def __init__(self):
        super().__init__("spoke", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        try:
            slots = gdb.parse_and_eval("'handle.c'::slots")
            used = int(gdb.parse_and_eval("'handle.c'::used"))
        except gdb.error as error:
            raise gdb.GdbError("there is no libspoke here, or it has no debug information") from error
        found = {"spk_engine": {}, "spk_socket": {}}
        for index in range(1, used):
            slot = slots[index]
            if int(slot["tag"]) == 0:
                continue
            engine = slot["engine"]
            found["spk_engine"][int(engine)] = True
            if int(slot["tag"]) >> 16 & 15 == SOCKET_HANDLE:
                found["spk_socket"][int(slot["object"])] = True
        for type_name, addresses in found.items():
            pointer = gdb.lookup_type("struct " + type_name).pointer()
            for address in addresses:
                print("%#x %s" % (address, self.show(gdb.Value(address).cast(pointer).dereference())))

    @staticmethod
    def show(value):
        if str(value.type) == "struct spk_engine":
            return Engine(value).to_string()
        lines = [Socket(value).to_string()]
        lines += [Endpoint(ep).to_string() for ep in each(value["endpoints"], "struct spk_endpoint", "link")]
        lines += [Pipe(p).to_string() for p in each(value["pipes"], "struct spk_pipe", "link")]
        return "\n    ".join(lines)


printers = gdb.printing.RegexpCollectionPrettyPrinter("spoke")
for name, printer in (("spoke_msg", Message), ("spk_pipe", Pipe), ("spk_op", Operation),
                      ("spk_endpoint", Endpoint), ("spk_socket", Socket), ("spk_engine", Engine)):
    printers.add_printer(name, "^%s$" % name, printer)
gdb.printing.register_pretty_printer(None, printers, replace=True)
Spoke()

"""The forking server inside the sandbox. Started by `server.rs`, never by hand.

Three processes do the work of one job, all forked from this one, which has its modules loaded already:

- the server (this file's `main`) never runs foreign code. It forks, watches the limits, and reports.
- the program process runs the foreign program, in a process namespace of its own, without capabilities, under
  the seccomp filter and the resource limits. Everything it sends is a claim, not a fact.
- the verifier process holds the tests and the token. It was never the same process as the program: it asks it for
  calls, gets plain values back, and compares them itself. So a program can neither read the tests or the token, nor
  patch what compares, nor pass by leaving early.

Frames on descriptors are a length (4 bytes, little endian) and JSON.
"""

import ast
import builtins
import ctypes
import json
import linecache
import os
import resource
import select
import signal
import struct
import sys
import time
import traceback
import types

# Loaded once here, so that no program pays for them.
import bisect, collections, cmath, copy, datetime, decimal, fractions, functools, heapq  # noqa: E401, F401
import itertools, math, operator, random, re, statistics, string, typing  # noqa: E401, F401

NAME = "program.py"
LIMIT = 4000  # characters of any text in a report
FRAME_LIMIT = 16 << 20


def truncated(text):
    return text if len(text) <= LIMIT else text[:LIMIT] + "\n[cut]"


def read_exactly(fd, count):
    parts = []
    while count:
        part = os.read(fd, min(count, 1 << 16))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def receive(fd):
    (length,) = struct.unpack("<I", read_exactly(fd, 4))
    if length > FRAME_LIMIT:
        raise EOFError
    return json.loads(read_exactly(fd, length))


def send(fd, message):
    data = json.dumps(message).encode("ascii")
    data = struct.pack("<I", len(data)) + data
    while data:
        data = data[os.write(fd, data):]


# --- Values that cross between program and verifier -----------------------------------------------------------------

PLAIN = (type(None), bool, int, float, str)
BUILT = {
    "decimal": decimal.Decimal, "fraction": fractions.Fraction, "date": datetime.date,
    "datetime": datetime.datetime, "time": datetime.time, "timedelta": datetime.timedelta,
}


def encode(value, handle, depth=0):
    """A value as JSON; what is not plain data becomes what `handle` makes of it."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if depth > 90:
        return handle(value)
    inner = functools.partial(encode, handle=handle, depth=depth + 1)
    for tag, sequence in (("l", list), ("t", tuple), ("s", set), ("f", frozenset), ("q", collections.deque)):
        if kind is sequence:
            return [tag, *map(inner, value)]
    if kind is dict:
        return ["d", *([inner(k), inner(v)] for k, v in value.items())]
    if kind in (bytes, bytearray):
        return ["b", kind.__name__, value.hex()]
    if kind is complex:
        return ["c", value.real, value.imag]
    if kind is range:
        return ["r", value.start, value.stop, value.step]
    if kind is type and getattr(builtins, value.__name__, None) is value:
        return ["T", value.__name__]
    if kind in (decimal.Decimal, fractions.Fraction):
        return ["x", kind.__name__.lower(), str(value)]
    if kind is datetime.datetime and value.tzinfo is None:
        return ["x", "datetime", *value.timetuple()[:6], value.microsecond]
    if kind is datetime.date:
        return ["x", "date", value.year, value.month, value.day]
    if kind is datetime.timedelta:
        return ["x", "timedelta", value.days, value.seconds, value.microseconds]
    # Subclasses of plain data count as that data: a Counter equals a dict, a named tuple a tuple.
    for base in (bool, int, float, str):
        if isinstance(value, base):
            return base(value)
    for tag, base in (("d", dict), ("t", tuple), ("l", list)):
        if isinstance(value, base) and not isinstance(value, type):
            return encode(base(value), handle, depth)
    return handle(value)


def decode(value, handle):
    if not isinstance(value, list):
        return value
    tag, *rest = value
    inner = functools.partial(decode, handle=handle)
    if tag in "ltsfq":
        make = {"l": list, "t": tuple, "s": set, "f": frozenset, "q": collections.deque}[tag]
        return make(map(inner, rest))
    if tag == "d":
        return {inner(k): inner(v) for k, v in rest}
    if tag == "b":
        return {"bytes": bytes, "bytearray": bytearray}[rest[0]].fromhex(rest[1])
    if tag == "c":
        return complex(*map(float, rest))
    if tag == "r":
        return range(*map(int, rest))
    if tag == "T":
        found = getattr(builtins, str(rest[0]))
        return found if isinstance(found, type) else None
    if tag == "x":
        return BUILT[rest[0]](*rest[1:])
    if tag == "h":
        return handle(*rest)
    raise ValueError("not a value")


# --- The program process --------------------------------------------------------------------------------------------


def explain(error):
    """Kind and text of an exception: only the program's own frames and lines, no carets."""
    kind = type(error).__name__
    try:
        message = str(error)
    except Exception:
        message = "(no message)"
    last = f"{kind}: {message}" if message else kind
    if isinstance(error, SyntaxError) and error.filename == NAME:
        source = (error.text or "").rstrip("\n")
        last = f"{kind}: {error.msg}"
        text = f'  File "{NAME}", line {error.lineno}\n    {source.strip()}\n{last}'
        return kind, truncated(text), error.lineno
    frames = [f for f in traceback.extract_tb(error.__traceback__, limit=2000) if f.filename == NAME]
    lines = ["Traceback (most recent call last):"]
    shown = frames if len(frames) <= 8 else frames[:2] + [None] + frames[-5:]
    for frame in shown:
        if frame is None:
            lines.append(f"  [{len(frames) - 7} more]")
            continue
        lines.append(f'  File "{NAME}", line {frame.lineno}, in {frame.name}')
        if frame.line:
            lines.append(f"    {frame.line}")
    lines.append(last)
    if not frames:
        lines = [last]
    return kind, truncated("\n".join(lines)), frames[-1].lineno if frames else None


def load(source, name):
    module = types.ModuleType(name)
    sys.modules[name] = module
    module.__file__ = NAME
    source = source.replace("\r\n", "\n")
    linecache.cache[NAME] = (len(source), None, source.splitlines(True), NAME)
    exec(compile(source, NAME, "exec"), module.__dict__)
    return module


class Objects:
    """What the verifier holds only a number of."""

    def __init__(self):
        self.kept = {}

    def keep(self, value):
        number = len(self.kept)
        self.kept[number] = value
        what = "callable" if callable(value) else "iterable" if hasattr(value, "__iter__") else "object"
        return ["h", number, what, type(value).__name__]


def operate(objects, request):
    kind = request["do"]
    take = functools.partial(decode, handle=lambda number, *_: objects.kept[number])
    if kind == "call":
        target = take(request["on"])
        args = [take(a) for a in request["args"]]
        before = json.dumps(request["args"])
        result = target(*args, **{k: take(v) for k, v in request["named"].items()})
        reply = {"value": encode(result, objects.keep)}
        changed = [encode(a, lambda value: ["h", -1]) for a in args]
        if json.dumps(changed) != before:
            reply["args"] = changed
        return reply
    target = take(request["on"])
    if kind == "get":
        return {"value": encode(getattr(target, request["name"]), objects.keep)}
    if kind == "set":
        setattr(target, request["name"], take(request["value"]))
        return {"value": None}
    if kind == "iter":
        return {"value": encode(iter(target), objects.keep)}
    if kind == "next":
        try:
            return {"value": encode(next(target), objects.keep)}
        except StopIteration:
            return {"stop": True}
    one = {"len": len, "str": str, "repr": repr, "bool": bool, "hash": hash}
    if kind in one:
        return {"value": encode(one[kind](target), objects.keep)}
    if kind == "item":
        return {"value": encode(target[take(request["key"])], objects.keep)}
    raise ValueError(kind)


def serve_program(source, requests, replies):
    """Loads the program, says what it defines, then does as asked until the verifier is done."""
    objects = Objects()
    try:
        module = load(source, "program")
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        kind, text, line = explain(error)
        send(replies, {"failed": kind, "text": text, "line": line})
        return
    names, modules = {}, {}
    for name, value in list(vars(module).items()):
        if isinstance(value, types.ModuleType):
            modules[name] = value.__name__
        elif not name.startswith("__"):
            names[name] = encode(value, objects.keep)
    send(replies, {"names": names, "modules": modules})
    while True:
        request = receive(requests)
        try:
            reply = operate(objects, request)
        except Exception as error:
            kind, text, line = explain(error)
            reply = {"raised": kind, "message": truncated(str(error)), "text": text, "line": line}
        send(replies, reply)


def run_script(source):
    # The script's own folder comes first, as it would outside.
    sys.path.insert(0, os.getcwd())
    try:
        load(source, "__main__")
    except SystemExit:
        raise
    except BaseException as error:
        sys.stdout.flush()
        sys.stderr.write(explain(error)[1] + "\n")
        sys.stderr.flush()
        raise SystemExit(1)


# --- The verifier process -------------------------------------------------------------------------------------------


class Ended(Exception):
    """The program process is gone."""


class Link:
    def __init__(self, requests, replies):
        self.requests, self.replies = requests, replies

    def ask(self, **request):
        try:
            send(self.requests, request)
            reply = receive(self.replies)
        except (EOFError, OSError, ValueError, RecursionError):
            raise Ended from None
        if not isinstance(reply, dict):
            raise Ended
        if "raised" in reply:
            known = getattr(builtins, str(reply["raised"]), None)
            kind = known if isinstance(known, type) and issubclass(known, Exception) else Exception
            try:
                error = kind(reply.get("message"))
            except Exception:
                error = Exception(reply.get("message"))
            error.far = (str(reply["raised"]), str(reply.get("text")), reply.get("line"))
            raise error
        return reply

    def value(self, **request):
        return self.decode(self.ask(**request).get("value"))

    def decode(self, value):
        try:
            return decode(value, lambda number, what, name: Far(self, number, what, name))
        except (TypeError, ValueError, KeyError, AttributeError, IndexError, RecursionError, ArithmeticError):
            raise Ended from None

    def encode(self, value):
        def handle(other):
            if isinstance(other, Far):
                return ["h", object.__getattribute__(other, "_number")]
            raise TypeError(f"a test cannot hand a {type(other).__name__} to the program")
        return encode(value, handle)


class Far:
    """An object of the program, held by number.

    Comparisons are not forwarded: an object that calls itself equal to everything is equal to itself only.
    """

    def __init__(self, link, number, what, name):
        for key, value in (("_link", link), ("_number", number), ("_what", what), ("_name", name)):
            object.__setattr__(self, key, value)

    def _ask(self, do, **more):
        return self._link.value(do=do, on=["h", self._number], **more)

    def __call__(self, *args, **named):
        link = self._link
        named = {name: link.encode(value) for name, value in named.items()}
        reply = link.ask(do="call", on=["h", self._number], args=[link.encode(a) for a in args], named=named)
        for old, new in zip(args, reply.get("args", ())):
            # A program may change its arguments, and tests may look at them afterwards.
            if type(old) in (list, dict, set, bytearray, collections.deque) and "[\"h\", -1" not in json.dumps(new):
                new = link.decode(new)
                if type(new) is type(old) and new != old:
                    old.clear()
                    (old.update if isinstance(old, (dict, set)) else old.extend)(new)
        return link.decode(reply.get("value"))

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self._ask("get", name=name)

    def __setattr__(self, name, value):
        self._ask("set", name=name, value=self._link.encode(value))

    def __iter__(self):
        iterator = self._ask("iter")
        if not isinstance(iterator, Far):
            raise TypeError("not an iterator")
        while True:
            reply = self._link.ask(do="next", on=["h", iterator._number])
            if reply.get("stop"):
                return
            yield self._link.decode(reply.get("value"))

    def __next__(self):
        reply = self._link.ask(do="next", on=["h", self._number])
        if reply.get("stop"):
            raise StopIteration
        return self._link.decode(reply.get("value"))

    def __len__(self):
        return int(self._ask("len"))

    def __getitem__(self, key):
        return self._ask("item", key=self._link.encode(key))

    def __str__(self):
        return str(self._ask("str"))

    def __repr__(self):
        return f"<{self._name}>"

    def __bool__(self):
        return bool(self._ask("bool"))

    def __eq__(self, other):
        return isinstance(other, Far) and other._number == self._number

    __hash__ = object.__hash__


def split_assert(source):
    """Code of a test, and whether it keeps both sides of its comparison in `__got__` and `__needed__`."""
    tree = ast.parse(source)
    one = tree.body[0] if len(tree.body) == 1 else None
    plain = isinstance(one, ast.Assert) and one.msg is None and isinstance(one.test, ast.Compare)
    if plain and len(one.test.ops) == 1:
        keep = ast.parse("__got__ = 0\n__needed__ = 0").body
        keep[0].value, keep[1].value = one.test.left, one.test.comparators[0]
        one.test.left = ast.Name("__got__", ast.Load())
        one.test.comparators = [ast.Name("__needed__", ast.Load())]
        tree.body = [*keep, one]
        ast.fix_missing_locations(tree)
    return compile(tree, "tests.py", "exec"), plain


def short(value):
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."


def run_test(source, names):
    """None if the test passes, or the kind, text and program line of its failure."""
    code, plain = split_assert(source)
    try:
        exec(code, names)
        return None
    except Ended:
        raise
    except BaseException as error:
        if hasattr(error, "far"):
            kind, text, line = error.far
            return {"kind": kind, "text": text, "line": line}
        kind = type(error).__name__
        message = str(error)
        if isinstance(error, AssertionError) and plain:
            message = f"got {short(names.get('__got__'))}"
        shown = source.strip() if len(source) < 400 else failing_line(error, source)
        last = f"{kind}: {message}" if message else kind
        return {"kind": kind, "text": truncated(f"{shown}\n{last}"), "line": None}


def failing_line(error, source):
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == "tests.py"]
    lines = source.splitlines()
    number = frames[-1].lineno if frames else 1
    return lines[number - 1].strip() if number <= len(lines) else ""


def verify(secret, requests, replies):
    """All results and the token. The token leaves this process only with them."""
    link, results = Link(requests, replies), []
    tests = secret["tests"]
    try:
        first = receive(replies)
        if not isinstance(first, dict):
            raise Ended
        if "failed" in first:
            failure = {"kind": str(first["failed"]), "text": str(first.get("text")), "line": first.get("line")}
            results = [failure] * len(tests)
            return {"token": secret["token"], "results": results}
        names = {"__name__": "tests"}
        for name, module in first.get("modules", {}).items():
            if str(module).partition(".")[0] in sys.stdlib_module_names:
                try:
                    names[name] = __import__(str(module), fromlist=["x"])
                except Exception:
                    pass
        for name, value in first.get("names", {}).items():
            names[name] = link.decode(value)
        if secret["setup"].strip():
            failure = run_test(secret["setup"], names)
            if failure:
                return {"token": secret["token"], "results": [failure] * len(tests)}
        for test in tests:
            results.append(run_test(test, names))
    except (Ended, EOFError, OSError, ValueError, AttributeError):
        return {"token": secret["token"], "results": results, "ended": True}
    return {"token": secret["token"], "results": results}


# --- The server -----------------------------------------------------------------------------------------------------


class Cage:
    """What a forked process does to itself before it runs anything."""

    def __init__(self, settings):
        self.filters = [bytes.fromhex(text) for text in settings["filters"]]
        self.clone, self.capset = settings["clone"], settings["capset"]
        self.namespaces = settings["namespaces"]
        self.others = settings["others"]
        self.libc = ctypes.PyDLL(None, use_errno=True)

    def fork(self):
        """A child that is the first process of its own process namespace, where there are namespaces."""
        if not self.namespaces:
            return os.fork()
        python = ctypes.pythonapi
        python.PyOS_BeforeFork()
        new_pid = 0x2000_0000
        pid = self.libc.syscall(self.clone, new_pid | signal.SIGCHLD, 0, 0, 0, 0)
        if pid == 0:
            python.PyOS_AfterFork_Child()
        else:
            python.PyOS_AfterFork_Parent()
        if pid < 0:
            raise OSError(ctypes.get_errno(), "clone")
        return pid

    def limit(self, job):
        limits = [
            (resource.RLIMIT_AS, job["memory"]), (resource.RLIMIT_CPU, job["cpu"]),
            (resource.RLIMIT_FSIZE, job["disk"]), (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_MSGQUEUE, 0),
        ]
        if self.namespaces:
            limits.append((resource.RLIMIT_NPROC, self.others + job["processes"]))
        for which, value in limits:
            _, most = resource.getrlimit(which)
            value = value if most == resource.RLIM_INFINITY else min(value, most)
            resource.setrlimit(which, (value, value))

    def lock(self):
        """Gives up every capability, then installs the filters. Nothing after this can be undone."""
        libc = self.libc
        libc.prctl(38, 1, 0, 0, 0)
        header = struct.pack("<II", 0x2008_0522, 0)
        if libc.syscall(self.capset, header, bytes(24)) != 0:
            os._exit(125)
        for code in self.filters:
            code = ctypes.create_string_buffer(code, len(code))
            program = struct.pack("@HP", len(code) // 8, ctypes.addressof(code))
            if libc.prctl(22, 2, program, 0, 0) != 0:
                os._exit(125)


def only(*wanted):
    """Closes every descriptor but these."""
    previous = 2
    for fd in sorted(wanted):
        os.closerange(previous + 1, fd)
        previous = fd
    os.closerange(previous + 1, 1024)


def program_process(cage, job, ends):
    os.setsid()
    os.dup2(ends["null"], 0)
    os.dup2(ends["out"], 1)
    os.dup2(ends["err"], 2)
    talk = [ends["requests"], ends["replies"]] if job["tests"] else []
    only(*talk)
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    sys.argv = [NAME]
    cage.limit(job)
    cage.lock()
    # The last reference to what the server knows; a program that walks the stack finds its own source.
    source, tests = job["program"], job["tests"]
    job.clear()
    status = 0
    try:
        if tests:
            serve_program(source, *talk)
        else:
            run_script(source)
    except SystemExit as leave:
        code = leave.code
        status = code if isinstance(code, int) else 0 if code is None else 1
    except (EOFError, OSError):
        status = 3
    except BaseException:
        status = 2
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        pass
    os._exit(status & 255)


def verifier_process(cage, job, ends):
    os.setsid()
    os.dup2(ends["null"], 1)
    os.dup2(ends["null"], 2)
    only(SECRETS, ends["verdict"], ends["requests"], ends["replies"])
    secret = receive(SECRETS)
    os.close(SECRETS)
    cage.limit(dict(job, memory=max(job["memory"], 512 << 20)))
    cage.lock()
    report = verify(secret, ends["requests"], ends["replies"])
    send(ends["verdict"], report)
    os._exit(0)


def watch(job, program, readers, deadline):
    """Reads until the job is over or over a limit. What came, and why it ended."""
    kept = {name: [] for name in readers.values()}
    budget, over, timed_out, done = job["output"], False, False, False
    end = os.pidfd_open(program)
    poll = select.poll()
    for fd in (*readers, end):
        poll.register(fd, select.POLLIN)
    while not done:
        left = deadline - time.monotonic()
        if left <= 0:
            timed_out = True
            break
        for fd, _ in poll.poll(max(1, int(left * 1000))):
            if fd == end:
                # Whatever the program wrote is in the pipes by now.
                poll.unregister(end)
                done = done or not job["tests"]
                continue
            data = os.read(fd, 1 << 16)
            name = readers[fd]
            if not data:
                poll.unregister(fd)
                done = done or name == "verdict"
                continue
            if name != "verdict":
                data, budget = data[:budget], budget - len(data)
                over = over or budget < 0
                done = done or over
            kept[name].append(data)
    if b'"ended": true' in b"".join(kept.get("verdict", [])):
        # Its pipes close a moment before it is gone; its own end is the better account than our signal.
        select.select([end], [], [], 0.5)
    os.close(end)
    return kept, over, timed_out, budget


def drain(kept, readers, budget):
    for fd, name in readers.items():
        os.set_blocking(fd, False)
        try:
            while data := os.read(fd, 1 << 16):
                if name != "verdict":
                    data, budget = data[:max(budget, 0)], budget - len(data)
                kept[name].append(data)
        except OSError:
            pass
    return budget < 0


def stop(pid, group):
    try:
        if group:
            os.killpg(pid, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
    _, status, used = os.wait4(pid, 0)
    return status, used.ru_utime + used.ru_stime


def empty(folder):
    """Removes what a program left. False if something would not go."""
    import shutil

    try:
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        return True
    except (OSError, RecursionError):
        return False


def run_job(cage, job, null):
    for name, text in job["files"].items():
        with open(name, "w", encoding="utf-8", newline="") as file:
            file.write(text)
    out, err = os.pipe(), os.pipe()
    readers = {out[0]: "out", err[0]: "err"}
    ends = {"null": null, "out": out[1], "err": err[1]}
    opened = [out[1], err[1]]
    if job["tests"]:
        ask, answer, verdict = os.pipe(), os.pipe(), os.pipe()
        ends |= {"requests": ask[0], "replies": answer[1]}
        opened += [*ask, *answer, verdict[1]]
    started = time.monotonic()
    program = cage.fork()
    if program == 0:
        program_process(cage, job, ends)
    verifier = None
    if job["tests"]:
        # Only now does the verifier read the tests and the token: the program was forked without them.
        verifier = os.fork()
        if verifier == 0:
            verifier_process(cage, job, {"null": null, "verdict": verdict[1], "requests": ask[1], "replies": answer[0]})
        readers[verdict[0]] = "verdict"
    for fd in opened:
        os.close(fd)
    kept, over, timed_out, budget = watch(job, program, readers, started + job["wall"])
    elapsed = time.monotonic() - started
    early = os.waitid(os.P_PID, program, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    if verifier is not None:
        stop(verifier, False)
    status, cpu = stop(program, not cage.namespaces)
    over = drain(kept, readers, budget) or over
    for fd in readers:
        os.close(fd)
    report = {
        "status": status if early else None, "cpu": cpu, "wall": elapsed, "timed_out": timed_out, "over": over,
        "out": b"".join(kept["out"]).decode("utf-8", "replace"),
        "err": b"".join(kept["err"]).decode("utf-8", "replace"),
        "verdict": b"".join(kept.get("verdict", []))[4:].decode("ascii", "replace"),
    }
    report["clean"] = empty(".")
    return report


def main():
    global SECRETS
    SECRETS = int(sys.argv[1])
    sys.set_int_max_str_digits(0)
    only(SECRETS)
    cage = Cage(receive(0))
    null = os.open("/dev/null", os.O_RDWR)
    # Results leave by a descriptor no child keeps; anything printed by mistake goes nowhere.
    jobs, results = os.dup(0), os.dup(1)
    os.dup2(null, 0)
    os.dup2(null, 1)
    # Short-lived children are never collected: their memory goes back whole.
    import gc

    gc.collect()
    gc.freeze()
    send(results, {"ready": list(sys.version_info[:3])})
    while True:
        try:
            job = receive(jobs)
        except EOFError:
            return
        send(results, run_job(cage, job, null))


if __name__ == "__main__":
    main()

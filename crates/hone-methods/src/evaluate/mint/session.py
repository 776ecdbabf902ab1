# One cell of an interactive session. The cells before it run first, unseen, so that its names are there.
import ast, contextlib, io, json, linecache, random, sys, traceback

with open("cells.json") as file:
    cells = json.load(file)
random.seed(0)
space = {"__name__": "__main__"}


def show(error, name):
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith("<cell")]
    print("Traceback (most recent call last):")
    for line in traceback.format_list(frames) + traceback.format_exception_only(type(error), error):
        print(line, end="")


def run(number, source):
    name = f"<cell {number}>"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    try:
        body = ast.parse(source, name).body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), name, "exec"), space)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), name, "eval"), space)
            if value is not None:
                print(f"Out[{number}]: {value!r}")
    except BaseException as error:
        show(error, name)


for number, source in enumerate(cells[:-1], 1):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run(number, source)
with contextlib.redirect_stderr(sys.stdout):
    run(len(cells), cells[-1])

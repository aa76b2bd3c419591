"""The README's tour does what the README says.

    tour.py README ADDRESS SAID [--write]

Runs every `sh` block of the tour word for word, in one shell in the current directory, against the server at ADDRESS
that said SAID (a file) when it started. Replaced are the addresses, the password that the server generated, and the
blocks that start something: the server, which runs already, and the example, which is $PROTECTED_SERVICE. What each block prints is compared with the block that follows it, apart from
what differs each time: tokens, ids, keys, times. With --write the README gets the new output instead.
"""

import difflib
import pathlib
import re
import socket
import subprocess
import sys

TOUR = re.compile(r"(?<=\n## Five minutes with grpcurl\n).*?(?=\n## Protecting a service of your own\n)", re.S)
BLOCK = re.compile(r"```sh\n(.*?)```\n(?:\n```(?:json|text)\n(.*?)```\n)?", re.S)
DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_EXAMPLE = "127.0.0.1:50061"
START_EXAMPLE = "cargo run --release --example protected_service\n"
# Its output goes into a file, so that the shell's own ends with the shell.
STARTED_EXAMPLE = """
: > example.log
"$PROTECTED_SERVICE" http://{server} {example} >> example.log 2>&1 &
EXAMPLE=$!
trap 'kill $EXAMPLE' EXIT
until grep -q greets example.log; do kill -0 $EXAMPLE || break; sleep 0.1; done
cat example.log
"""
PASSWORD = re.compile(r"(?<=FIRST_PASSWORD=)\S+|(?<=^      )[A-Za-z0-9]{24}$", re.M)
MARK = "=== end of the block ==="
HINT = "Where the README is to change: TESTS_WRITE_README=1 scripts/test --test service word_for_word"
# In this order: a token may contain what looks like a key.
CHANGING = [
    (re.compile(r"eyJ[\w.-]+…?"), "A-JWT"),
    (re.compile(r"trt_[\w-]+…?"), "A-REFRESH-TOKEN"),
    (re.compile(r"tcs_[\w-]+…?"), "A-SECRET"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "AN-ID"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT[\d:.]+Z"), "A-TIME"),
    (re.compile(r"(?<![\w-])[\w-]{43}(?![\w-])"), "A-KEY"),
    (PASSWORD, "A-PASSWORD"),
]


def masked(text, address):
    for pattern, name in CHANGING:
        text = pattern.sub(name, text)
    return plain(text, address).split()


def plain(text, addresses):
    server, example = addresses
    return text.replace(server, DEFAULT_ADDRESS).replace(example, DEFAULT_EXAMPLE)


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return "127.0.0.1:%d" % free.getsockname()[1]


def shortened(text, address):
    text = re.sub(r"(eyJ[\w-]{17}|t(?:rt|cs)_[\w-]{16})[\w.-]+", r"\1…", text)
    return plain(text, address)


def run(blocks, addresses, password):
    server, example = addresses
    script = ""
    for commands, _ in blocks:
        commands = commands.replace(START_EXAMPLE, STARTED_EXAMPLE.format(server=server, example=example))
        commands = commands.replace(DEFAULT_ADDRESS, server).replace(DEFAULT_EXAMPLE, example)
        script += PASSWORD.sub(password, commands) + f"printf '\\n{MARK}\\n'\n"
    done = subprocess.run(
        ["sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    printed = done.stdout.split(f"\n{MARK}\n")
    assert len(printed) == len(blocks) + 1 and not printed[-1], f"the shell gave up: {printed[-1]}"
    return printed[:-1]


def main(readme, address, said, *flags):
    readme = pathlib.Path(readme)
    text = readme.read_text()
    tour = TOUR.search(text)
    blocks = BLOCK.findall(tour[0])
    assert blocks[0][0] == "cargo run --release -- serve\n", "the tour starts the server"
    said = pathlib.Path(said).read_text()
    password = PASSWORD.search(said)[0]
    pathlib.Path("examples").symlink_to(readme.resolve().parent / "examples")
    address = (address, free_address())
    printed = [said] + run(blocks[1:], address, password)

    if "--write" in flags:
        printed = iter(printed)
        def written(block):
            output = next(printed)
            if block[2] is None:
                return block[0]
            start, end = block.start(2) - block.start(), block.end(2) - block.start()
            return block[0][:start] + shortened(output, address).strip("\n") + "\n" + block[0][end:]
        new = re.sub(r"(?<=FIRST_PASSWORD=)\S+", password, BLOCK.sub(written, tour[0]))
        readme.write_text(text.replace(tour[0], new))
        return
    for (commands, told), output in zip(blocks, printed):
        if masked(told, address) != masked(output, address):
            real = shortened(output, address).splitlines()
            lines = "\n".join(difflib.unified_diff(told.splitlines(), real, "README", "real", lineterm=""))
            sys.exit(f"the tour's\n\n{commands}\nprints something else:\n{lines}\n\n{HINT}")
    assert len(blocks) > 10, f"only {len(blocks)} blocks were found"


main(*sys.argv[1:])

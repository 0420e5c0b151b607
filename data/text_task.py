"""Make a task for the harness from a text file: the perplexity of English text of your choice.

    python data/text_task.py book.txt --name book --output tasks
    python MathNeuro.py … --include_path tasks --eval_datasets book

Every document is the beginning of a paragraph; the paragraphs are spread evenly over the file.
A file that ends in .gz is unpacked while it is read.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from neurosurgery.cli.flags import OneLineParser  # noqa: E402
from neurosurgery.cli.parse import run_script  # noqa: E402
from neurosurgery.common.errors import UsageError  # noqa: E402
from neurosurgery.common.files import write_atomically  # noqa: E402
from neurosurgery.settings.checks import check_at_least, check_writable  # noqa: E402

TASK = """\
task: {task}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {documents}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
should_decontaminate: false
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
  - metric: bits_per_byte
num_fewshot: 0
metadata:
  version: 1.0
"""


def paragraphs(text: str, words: int) -> list[str]:
    """The first `words` words of every paragraph that has so many; a blank line ends one."""
    found = (paragraph.split() for paragraph in re.split(r"\n\s*\n", text))
    return [" ".join(each[:words]) for each in found if len(each) >= words]


def spread(items: Sequence[str], count: int) -> list[str]:
    """`count` of the items, evenly spaced from the first on."""
    return [items[index * len(items) // count] for index in range(count)]


def read_text(path: Path) -> str:
    """The file's text.

    Raises:
        UsageError: it cannot be read, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        # A byte order mark at the start is no text.
        return content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError("FILE", path, f"expected a text file ({error})") from None
    except UnicodeDecodeError as error:
        raise UsageError("FILE", path, f"expected UTF-8 text ({error.reason})") from None


def run(argv: Sequence[str] | None) -> None:
    """Parse the command line and write the two files of the task."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="text, UTF-8; .gz is unpacked")
    parser.add_argument("--name", type=str, required=True, help="the task's name")
    parser.add_argument("--output", type=Path, required=True, help="folder for the task's files")
    parser.add_argument(
        "--documents", type=int, default=100, help="how many paragraphs (default: 100)"
    )
    parser.add_argument("--words", type=int, default=100, help="words of each (default: 100)")
    arguments = parser.parse_args(argv)
    check_at_least(1, {"--documents": arguments.documents, "--words": arguments.words})
    # YAML reads a bare 123, null or yes as something else than a name.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", arguments.name):
        expected = "expected letters, digits and '_', no digit first"
        raise UsageError("--name", arguments.name, expected)
    found = paragraphs(read_text(arguments.file), arguments.words)
    if len(found) < arguments.documents:
        raise UsageError(
            "--documents",
            arguments.documents,
            f"the file has {len(found)} paragraphs of at least {arguments.words} words",
        )
    check_writable(arguments.output, "--output")
    chosen = spread(found, arguments.documents)
    documents = (arguments.output / f"{arguments.name}.jsonl").resolve()
    lines = "".join(json.dumps({"text": text}) + "\n" for text in chosen)
    write_atomically(documents, lines.encode())
    task = TASK.format(task=json.dumps(arguments.name), documents=json.dumps(str(documents)))
    write_atomically(arguments.output / f"{arguments.name}.yaml", task.encode())
    print(f"{arguments.output}: the task {arguments.name}, {len(chosen)} documents")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; the exit status is 0, or 2 for bad input."""
    return run_script(run, argv)


if __name__ == "__main__":
    sys.exit(main())

from __future__ import annotations

import pytest

from neurosurgery.common.errors import UsageError
from neurosurgery.prompts.pairs import PromptPair
from neurosurgery.prompts.read import read_prompts


def test_needed_columns_alone_in_any_order(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text('answer,prompt,counterfactual\n" 5","2 + 3 =","2 @ 3 ="\nNA,"é, è",x\n')
    assert read_prompts(file) == [
        PromptPair("2 + 3 =", "2 @ 3 =", " 5"),
        PromptPair("é, è", "x", "NA"),
    ]


def test_optional_columns_may_have_empty_cells(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text(
        "prompt,counterfactual,answer,family,operator,wrong_answer\n1+1=,1@1=,2,sums,+,3\na,b,c,,,\n"
    )
    assert read_prompts(file) == [
        PromptPair("1+1=", "1@1=", "2", "3", "+", "sums"),
        PromptPair("a", "b", "c"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected a CSV file with a header"),
        (b"prompt,counterfactual,answer\n", "has a header but no rows; expected a prompt in each"),
        (
            b"prompt,answer\na,b\n",
            "has the columns prompt, answer; expected prompt, counterfactual, answer and, if "
            "wanted, wrong_answer, operator, family",
        ),
        (
            b"prompt,counterfactual,answer,note\na,b,c,d\n",
            "has the columns prompt, counterfactual, answer, note; expected prompt, ",
        ),
        (b"prompt,counterfactual,answer\na,b,c\n,b,c\n", "row 2 is empty in column prompt; expec"),
        (b"prompt,counterfactual,answer\na,  ,c\n", "row 1 is empty in column counterfactual"),
        (b"prompt,counterfactual,answer\na,b,\n", "row 1 is empty in column answer"),
        (b"prompt,counterfactual,answer\na,b,c,d\n", "more fields than the header; quote texts"),
        (b"prompt,counterfactual,answer\na,b,c\na,b,c,d\n", "line 3 has 4 fields and the header 3"),
        (b"prompt;counterfactual;answer\na, b;c, d; e\n", "has semicolons between its columns; ex"),
        (
            b"\xef\xbb\xbfprompt;counterfactual;answer\na;b;c\n",
            "has semicolons between its columns",
        ),
        (b"prompt\tcounterfactual\tanswer\na, b\tc\td\n", "has tabs between its columns; expected"),
        (b"prompt|counterfactual|answer\na|b|c\n", "has bars between its columns; expected commas"),
        (b"sep=,\nprompt,counterfactual,answer\na,b,c\n", "begins with Excel's line sep=; delete"),
        (b"sep=;\nprompt;counterfactual;answer\na;b;c\n", "begins with Excel's line sep=; delete"),
        ("prompt,counterfactual,answer\na,b,c\n".encode("utf-16"), "found UTF-16 or NUL bytes; sa"),
        ("prompt,counterfactual,answer\na,b,c\n".encode("utf-16-le"), "found UTF-16 or NUL bytes"),
        (
            "prompt,counterfactual,answer\na,b,c\na…,b,c\n".encode("cp1252"),
            "byte 36 cannot be decoded, on line 3; if it is Windows-1252 or Latin-1, save it as",
        ),
        (
            b",prompt,counterfactual,answer\n0,a,b,c\n",
            "has a first column without a name, as of row",
        ),
        (
            b"Unnamed: 0,prompt,counterfactual,answer\n0,a,b,c\n",
            "has a first column without a name",
        ),
        (
            b"prompt,counterfactual,answer\n1+1=,1@1=,2.0\n1+2=,1@2=,3.0\n",
            "column answer holds whole numbers as fractions (2.0); expected them as a model writes "
            "them (2)",
        ),
        (
            b"prompt,counterfactual,answer,wrong_answer\n1+1=,1@1=,2,\n1+2=,1@2=,3,4.0\n",
            "column wrong_answer holds whole numbers as fractions (4.0)",
        ),
        (
            b"prompt,counterfactual,answer,wrong_answer\n1+1=,1@1=,2,3\n1+2=,1@2=,3,nan\n",
            "row 2 has nan in column wrong_answer, which stands for nothing; expected a text",
        ),
        (
            b"prompt,counterfactual,answer\na,b,NaN\n",
            "row 1 has NaN in column answer, which stands",
        ),
        (b"prompt,counterfactual,answer\n\xff\n", "expected UTF-8 text; byte 29 cannot be dec"),
        (b'prompt,counterfactual,answer\n"open\n', "is not a CSV file"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, content, message):
    file = tmp_path / "bad.csv"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_prompts(file)
    assert str(caught.value).startswith(f"--prompts {file}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"--prompts .*none\.csv: No such file .* expected a CSV"):
        read_prompts(tmp_path / "none.csv")


def test_what_only_looks_like_a_fault_is_read(tmp_path):
    """Fractions among the answers, a semicolon in a text, a mark before the text, other breaks."""
    file = tmp_path / "a.csv"
    file.write_bytes(
        b"\xef\xbb\xbfprompt,counterfactual,answer\r\n1/2=;,1@2=;,0.5\r\n4/2=,4@2=,2.0\r\n"
    )
    assert read_prompts(file) == [
        PromptPair("1/2=;", "1@2=;", "0.5"),
        PromptPair("4/2=", "4@2=", "2.0"),
    ]

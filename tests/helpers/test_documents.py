"""That the helper finds what a document shows, and takes nothing else for it."""

from __future__ import annotations

import pytest

from .documents import anchors_of, blocks_of, commands_in, links_in

TEXT = """\
# A title, with `code`

See [there](other.md#below), ![a picture](a.png), [a
title](#a-title-with-code) and [elsewhere](https://example.org).

```sh
# a comment
first --option 'two words' && python -m second.module \\
    --third    # why
python some/file.py;last
```

```python
items[0](no)
```

## Again
## Again

```
plain
```
"""


@pytest.fixture
def document(tmp_path) -> str:
    path = tmp_path / "document.md"
    path.write_text(TEXT, encoding="utf-8")
    return str(path)


def test_blocks(document):
    assert blocks_of("python", document) == ["items[0](no)\n"]
    assert blocks_of("", document) == ["plain\n"]
    assert len(blocks_of(None, document)) == 3


def test_commands(document):
    expected = [
        ("first", ["--option", "two words"]),
        ("python -m second.module", ["--third"]),
        ("python some/file.py", []),
        ("last", []),
    ]
    assert commands_in(document) == expected
    assert commands_in(document, "last") == expected[-1:]


def test_links(document):
    assert links_in(document) == ["other.md#below", "a.png", "#a-title-with-code"]
    assert anchors_of(document) == {"a-title-with-code", "again", "again-1"}

from html.parser import HTMLParser

from fourfold_ops.quality.page import index_page, quality_page

EMPTY = {"count": None, "rows": 4, "examples": [], "observed": None, "error": ""}
OUTCOMES = [
    {
        **EMPTY,
        "type": "expect_a",
        "column": "width",
        "limits": {"min_value": 1},
        "severity": "critical",
        "success": True,
        "count": 0,
    },
    {
        **EMPTY,
        "type": "expect_column_values_to_be_in_set",
        "column": None,
        "limits": {"value_set": ["<b>"]},
        "severity": "warning",
        "success": False,
        "count": 2,
        "examples": ["k1: <script>alert(1)</script>"],
    },
    {**EMPTY, "type": "expect_b", "column": "x", "limits": {}, "severity": "info", "success": False, "error": "no column x"},
]


class Reader(HTMLParser):
    """Collects the cells of each row, and the tags with an address."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.addresses, self.tags = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def test_page_has_every_outcome_failed_ones_first_and_loads_nothing():
    page = Reader(quality_page("shards", OUTCOMES, 4))
    script = "2 of 4 rows fail, e.g. k1: <script>alert(1)</script>"
    assert page.rows[1:] == [
        ["failed", "column values to be in set", "", "value_set = ['<b>']", script, "warning"],
        ["failed", "b", "x", "", "could not be checked: no column x", "info"],
        ["passed", "a", "width", "min_value = 1", "no row fails", "critical"],
    ]
    assert not page.addresses and not page.tags & {"script", "link", "img", "iframe", "b"}
    assert "4 rows; 2 of 3 expectations failed." in quality_page("shards", OUTCOMES, 4)


def test_the_index_links_to_the_page_of_each_suite():
    records = [{"suite": "b & <c>", "rows": 1200, "all": 3, "failed": 0}, {"suite": "a", "rows": 5, "all": 2, "failed": 1}]
    page = Reader(index_page(records))
    assert page.rows[1:] == [["failed", "a", "1 of 2 expectations failed", "5"], ["passed", "b & <c>", "3 hold", "1,200"]]
    assert page.addresses == ["a.html", "b%20%26%20%3Cc%3E.html"] and not page.tags & {"script", "link", "img", "c"}

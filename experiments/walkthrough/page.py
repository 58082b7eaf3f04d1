"""The page `moderator.html`: its address, for a table of one's own too."""

from pathlib import Path
from urllib.parse import quote, urlencode

import pandas as pd

PAGE = Path(__file__).with_name("moderator.html")
MOST_ROWS, MOST_COLUMNS = 12, 8  # as parseTable in the page


def address(table: pd.DataFrame | None = None) -> str:
    """Returns the page's address; with a table, that of the step that shows it.

    Raises:
        ValueError: if the table is larger than the page shows.
    """
    if table is None:
        return PAGE.as_uri()
    rows, columns = table.shape
    if rows > MOST_ROWS or columns > MOST_COLUMNS or rows < 2:
        raise ValueError(
            f"the page shows 2 to {MOST_ROWS} rows and up to {MOST_COLUMNS} columns, the table has "
            f"{rows} and {columns}; leave out --page"
        )
    text = table.to_csv(sep="\t", index_label="example")
    return f"{PAGE.as_uri()}#{urlencode({'at': 'norms', 'table': text.strip()}, quote_via=quote)}"

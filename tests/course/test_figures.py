"""`show` never publishes a figure without its text; tables are readable by eye and by machine."""

import re

import altair as alt
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from course import plot_band, show, table

matplotlib.use("Agg")
ALT = "A straight line rises from the lower left to the upper right."
CAPTION = "The line rises without a bend."


def line():
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    return fig


@pytest.fixture
def published(monkeypatch):
    outputs = []
    monkeypatch.setattr("course.figures.display", lambda output: outputs.append(output.data))
    return outputs


def test_show_publishes_picture_text_alternative_and_caption(published):
    show(line(), alt=ALT + ' It is "short" & thin.', caption=CAPTION)
    (html,) = published
    assert 'alt="A straight line' in html and "&quot;short&quot; &amp; thin" in html
    assert f">{CAPTION}</figcaption>" in html
    assert re.search(r'src="data:image/png;base64,[\w+/=]+"', html)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("alt", ["", "plot", "chapters/figure_1.png", "A line rises to the right"])
def test_show_refuses_a_figure_without_a_sentence(published, alt):
    with pytest.raises(ValueError, match="alt="):
        show(line(), alt=alt, caption=CAPTION)
    assert published == []


def test_show_refuses_a_figure_that_is_too_heavy(published):
    fig, ax = plt.subplots()
    ax.imshow(np.random.default_rng(0).random((700, 700)))
    with pytest.raises(ValueError, match=r"fig: the picture takes \d+ kB"):
        show(fig, alt=ALT, caption=CAPTION)


def test_a_table_is_html_with_headers_and_aligned_plain_text(monkeypatch):
    outputs = []
    monkeypatch.setattr("course.tables.display", lambda data, raw: outputs.append(data))
    table(["batch", "gap <%>"], [["m = 2", 41], ["m = 128", "0.4"]], caption="Gap by batch.")
    (data,) = outputs
    assert ">Gap by batch.</caption>" in data["text/html"]
    assert '<th scope="row">m = 2</th><td style="text-align: right">41</td>' in data["text/html"]
    assert "gap &lt;%&gt;" in data["text/html"]
    assert data["text/plain"].splitlines()[1:] == [
        "batch    gap <%>",
        "m = 2         41",
        "m = 128      0.4",
    ]


def test_a_table_refuses_a_row_of_another_length():
    with pytest.raises(ValueError, match="has 1 entries, columns has 2"):
        table(["a", "b"], [["only"]], caption="Short.")


def test_an_altair_chart_is_published_as_a_chart(monkeypatch):
    outputs = []
    monkeypatch.setattr("course.figures.display", lambda output, raw=False: outputs.append(output))
    data = alt.InlineData([{"x": 0, "y": 1}, {"x": 1, "y": 3}])
    show(alt.Chart(data).mark_line().encode(x="x:Q", y="y:Q"), alt=ALT, caption=CAPTION)
    chart, caption = outputs
    spec = chart["application/vnd.vegalite.v5+json"]
    assert spec["description"] == ALT and spec["mark"]["type"] == "line"
    assert CAPTION in caption.data


def test_a_band_is_the_mean_and_its_student_interval():
    seeds = np.array([[1.0, 4.0], [2.0, 4.0], [6.0, 4.0]])  # three seeds at two places
    fig, ax = plt.subplots()
    plot_band(ax, [10.0, 20.0], seeds, color="k", label="ours")
    mean, half = 3.0, 4.302653 * np.sqrt(7 / 3)  # of 1, 2, 6: variance 7; t of 2 degrees of freedom
    assert ax.lines[0].get_xydata().tolist() == [[10, mean], [20, 4]]
    corners = ax.collections[0].get_paths()[0].vertices
    first = corners[corners[:, 0] == 10, 1]
    np.testing.assert_allclose([first.min(), first.max()], [mean - half, mean + half], rtol=1e-6)
    assert [text.get_text() for text in ax.texts] == ["ours"]
    plt.close(fig)

"""`show` never publishes a figure without its text; tables are readable by eye and by machine."""

import re
from itertools import pairwise

import altair as alt
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from course import COLORS, bands, interval, plot_band, show, style, table

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


@pytest.fixture
def tables(monkeypatch):
    outputs = []
    monkeypatch.setattr("course.tables.display", lambda data, raw: outputs.append(data))
    return outputs


def test_a_table_prints_minus_signs_in_numbers_only(tables):
    rows = [["-1", "-0.5 [-1.5, 0.5]", "ResNet-18"], ["m - 1", "1e-3 to -2", "2-3, x[-1]"]]
    table(["start", "gap", "net"], rows, caption="A gap of -1 stays as it is.")
    (data,) = tables
    for form in ("text/html", "text/plain"):
        assert "−0.5 [−1.5, 0.5]" in data[form] and "1e−3 to −2" in data[form]
        assert "ResNet-18" in data[form] and "m - 1" in data[form] and "2-3, x[-1]" in data[form]
    assert '<th scope="row">−1</th>' in data["text/html"]


def test_a_frame_is_a_table_whose_index_names_the_rows(tables):
    index = pd.Index(["plain", "BN"], name="network")
    frame = pd.DataFrame({"loss": [0.2134, -0.1], "steps": [400, 20], "kept": [True, None]}, index=index)
    table(frame, caption="Two nets.", formats={"loss": ".3f"})
    (data,) = tables
    assert data["text/plain"].splitlines() == [
        "Two nets.",
        "network    loss  steps  kept",
        "plain     0.213    400   yes",
        "BN       −0.100     20     –",
    ]
    assert "<caption" in data["text/html"] and '<th scope="col">network</th>' in data["text/html"]
    assert '<th scope="row">BN</th><td style="text-align: right">−0.100</td>' in data["text/html"]


def test_a_frame_of_several_levels_has_no_empty_heading(tables):
    frame = pd.DataFrame({(0.1, "a"): [1.5]}, index=pd.MultiIndex.from_tuples([("l2", -3)]))
    table(frame, caption="One number.", formats=".2f")
    assert '<tr><td></td><th scope="col">0.1, a</th></tr>' in tables[0]["text/html"]
    assert '<th scope="row">l2, −3</th><td style="text-align: right">1.50</td>' in tables[0]["text/html"]


def test_intervals_stand_in_one_cell(tables):
    runs = pd.DataFrame({"net": ["a"] * 3 + ["b"] * 3, "gain": [1.0, 2.0, 3.0, -4.0, -4.0, -7.0]})
    found = runs.groupby("net")["gain"].apply(interval)  # 4.302653 is t of 2 degrees of freedom
    table(found.to_frame(), caption="Intervals.", formats={"gain": ".2f"})
    half = {"a": 4.302653 / 3**0.5, "b": 4.302653}  # of 1, 2, 3 and of -4, -4, -7: standard error 1
    expected = [
        f"{mean:.2f} [{mean - half[net]:.2f}, {mean + half[net]:.2f}]".replace("-", "−")
        for net, mean in (("a", 2), ("b", -5))
    ]
    assert [line[3:].strip() for line in tables[0]["text/plain"].splitlines()[2:]] == expected
    three = pd.DataFrame([(6.91, 5.08, 9.33, 7)], columns=["mean", "low", "high", "n"], index=["ours"])
    table(three, caption="Joined.", intervals={"gain": ("mean", "low", "high")}, formats={"gain": ".1f"})
    assert "".join(tables[1]["text/plain"].split()) == "Joined.gainnours6.9[5.1,9.3]7"


def test_a_table_refuses_a_format_of_no_column():
    frame = pd.DataFrame({"loss": [0.2]})
    with pytest.raises(ValueError, match=r"formats: \['lass'\] is not among .*'loss'"):
        table(frame, caption="c", formats={"lass": ".1f"})
    with pytest.raises(ValueError, match=r"intervals: \['low'\] is not among"):
        table(frame, caption="c", intervals={"gain": ("loss", "low", "loss")})


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


T2 = 4.302653  # Student's t of 2 degrees of freedom, 97.5 %
SEEDS = {("standard", 1): [1.0, 2.0, 6.0], ("standard", 10): [4.0, 4.0, 4.0]}
SEEDS |= {("batchnorm", 1): [1.0, 10.0, 100.0], ("batchnorm", 10): [2.0, 3.0, 4.0]}


def runs():
    """Three seeds of two networks at two steps, the rows in no order."""
    rows = [
        {"network": network, "step": step, "seed": seed, "training_loss": loss}
        for (network, step), losses in SEEDS.items()
        for seed, loss in enumerate(losses)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=3)


def band(ax, i, x):
    """The lower and the upper end of band i at x."""
    corners = ax.collections[i].get_paths()[0].vertices
    there = corners[corners[:, 0] == x, 1]
    return there.min(), there.max()


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def test_bands_draw_mean_and_interval_of_each_group(ax):
    assert bands(runs().iloc[::-1], "step", "training_loss", by="network", ax=ax) is ax
    by_color = {line.get_color(): i for i, line in enumerate(ax.lines)}
    standard, bn = by_color[COLORS["standard"]], by_color[COLORS["bn"]]
    np.testing.assert_allclose(ax.lines[standard].get_xydata(), [[1, 3], [10, 4]])
    np.testing.assert_allclose(ax.lines[bn].get_xydata(), [[1, 37], [10, 3]])
    half = T2 * (7 / 3) ** 0.5  # of 1, 2, 6: variance 7
    np.testing.assert_allclose(band(ax, standard, 1), [3 - half, 3 + half], rtol=1e-6)
    np.testing.assert_allclose(band(ax, bn, 10), [3 - T2 / 3**0.5, 3 + T2 / 3**0.5], rtol=1e-6)
    assert {text.get_text(): text.xy for text in ax.texts} == {"standard": (10, 4), "batchnorm": (10, 3)}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "training loss")


def test_bands_of_positive_numbers_are_geometric(ax):
    frame = runs().query("network == 'batchnorm'")
    bands(frame, "step", "training_loss", by="network", ax=ax, bounds=(0, np.inf), labels={"batchnorm": "BN"})
    factor = 10 ** (T2 / 3**0.5)  # of 1, 10, 100: powers of ten 0, 1, 2, standard deviation 1
    np.testing.assert_allclose(ax.lines[0].get_ydata()[0], 10)
    np.testing.assert_allclose(band(ax, 0, 1), [10 / factor, 10 * factor], rtol=1e-6)
    assert [text.get_text() for text in ax.texts] == ["BN"]


def test_a_value_on_a_bound_changes_no_other_place(ax):
    frame = pd.concat([runs().query("network == 'batchnorm'"), runs().query("network == 'batchnorm'")])
    frame["step"] += np.repeat([0, 100], 6)
    frame.loc[frame["step"] == 101, "training_loss"] = [0.0, 0.0, 6.0]
    frame.loc[frame["step"] == 110, "training_loss"] = [1.0, np.nan, 3.0]
    bands(frame, "step", "training_loss", by="network", ax=ax, bounds=(0, np.inf))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [10, 24 ** (1 / 3), 2, np.nan])
    assert band(ax, 0, 101)[0] == 0  # cut at the bound


def test_a_missing_seed_leaves_a_gap_and_the_label_stands_where_the_line_ends(ax):
    frame = runs().query("network == 'standard'")
    frame = frame[(frame["step"] != 10) | (frame["seed"] != 2)]
    bands(frame, "step", "training_loss", by="network", ax=ax)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [3, np.nan])
    assert ax.texts[0].xy == (1, 3)


def test_groups_have_colours_by_name_or_by_choice_or_free_ones(ax):
    frame = pd.concat([runs().assign(network=n) for n in (0.5, "batchnorm", "mine", "chosen")])
    bands(
        frame.drop_duplicates(["network", "step", "seed"]),
        "step",
        "training_loss",
        by="network",
        ax=ax,
        colors={"chosen": "gray"},
        marker=".",
    )
    colors = [line.get_color() for line in ax.lines]
    assert colors[1] == COLORS["bn"] and colors[3] == COLORS["gray"]
    assert len(set(colors)) == 4 and set(colors) <= set(COLORS.values())
    assert ax.texts[0].get_text() == "0.5" and ax.lines[0].get_marker() == "."


def test_bands_make_axes_of_their_own_and_leave_out_an_empty_label():
    made = bands(runs(), "step", "training_loss", by="network", labels={"standard": ""})
    assert [text.get_text() for text in made.texts] == ["batchnorm"]
    assert plt.gcf() is made.figure
    plt.close(made.figure)


def test_bands_refuse_what_is_not_tidy():
    before = plt.get_fignums()
    with pytest.raises(ValueError, match="no column loss; it has network, step, seed, training_loss"):
        bands(runs(), "step", "loss", by="network")
    twice = pd.concat([runs().assign(lr=0.1), runs().assign(lr=1.0)])
    with pytest.raises(ValueError, match=r"24 rows share network, step and seed .* differ: lr\)"):
        bands(twice, "step", "training_loss", by="network")
    many = pd.concat([runs().query("network == 'standard'").assign(network=f"n{i}") for i in range(8)])
    with pytest.raises(ValueError, match="8 groups, but 7 colours"):
        bands(many, "step", "training_loss", by="network")
    assert plt.get_fignums() == before


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_labels_at_the_end_do_not_cover_each_other(scale):
    style()
    near = {"a": 1.0, "standard": 1.001, "batchnorm": 1.002, "d": 5.0, "e": 1.0}
    frame = pd.DataFrame(
        [
            {"net": net, "x": x, "seed": seed, "y": y + seed * 1e-5}
            for net, y in near.items()
            for x in (0, 1)
            for seed in (0, 1)
        ]
    )
    ax = bands(frame, "x", "y", by="net")
    ax.set_yscale(scale)  # after the labels were written
    ax.figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))
    order = sorted(ax.texts, key=lambda text: text.get_window_extent().y0)
    assert [text.get_text() for text in order][2:] == ["standard", "batchnorm", "d"]
    assert all(box.x1 <= ax.figure.bbox.x1 for box in boxes)  # none is cut off
    plt.close(ax.figure)


def test_a_log_axis_counts_in_plain_numbers(ax):
    style()
    ax.set(yscale="log", ylim=(2e-3, 5e3))  # the exponent of a ten is a small letter
    ax.figure.canvas.draw()
    shown = [text.get_text() for text in ax.get_yticklabels() if 2e-3 < text.get_position()[1] < 5e3]
    assert [float(text.strip("$").removeprefix(r"\mathdefault{").rstrip("}")) for text in shown] == [
        0.01,
        0.1,
        1,
        10,
        100,
        1000,
    ]


def test_letters_are_readable_on_a_telephone_and_against_white():
    style()
    pale = {"standard": "sky", "batchnorm": "orange"}
    ax = bands(runs(), "step", "training_loss", by="network", colors=pale)
    ax.set_yscale("log")
    ax.set_title("title")
    ax.figure.canvas.draw()
    texts = [*ax.texts, ax.title, ax.xaxis.label, ax.yaxis.label]
    texts += [*ax.get_xticklabels(), *ax.get_yticklabels()]
    shrunk = 342 / (96 * ax.figure.get_figwidth())  # the width of a page's column on a telephone
    assert min(text.get_fontsize() * 96 / 72 for text in texts) * shrunk >= 8
    for text in ax.texts:
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in text.get_color())
        assert 1.05 / (0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05) >= 4.5  # WCAG 2.2, 1.4.3
    plt.close(ax.figure)

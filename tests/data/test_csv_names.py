"""Names of columns as they are typed, hints that work when they are typed, and words for empty cells."""

import shlex

import pytest
from hydra import compose, initialize_config_dir
from test_csv import data

from lstmopt.conf_dir import conf_dir
from lstmopt.data import table
from lstmopt.data.column_names import typed
from lstmopt.errors import DataError

NAMES = [
    "load",
    "Sales (EUR)",
    "T [°C]",
    "it's",
    'say "hi"',
    "a,b",
    "a=b",
    "back\\",
    "2020",
    "null",
    "Price $",
    "x.y",
    "é",
]


def config(*words):
    """What Hydra makes of words that a shell has taken apart."""
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose("train", ["data=csv", "data.path=a.csv", *(word for one in words for word in shlex.split(one))])


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_read_as_it_was_written(name):
    found = config(typed("data.target", name), typed("data.features", "b", name)).data
    assert (found.target, found.features) == (name, ["b", name])


@pytest.mark.parametrize("name", NAMES[:5])
def test_a_hint_names_columns_as_they_are_typed(name, tmp_path):
    path, quoted = tmp_path / "a.csv", '"' + name.replace('"', '""') + '"'
    path.write_text(f"when,{quoted}\n" + "".join(f"{k},{k % 7}\n" for k in range(40)))
    for key, value in (("target", "zzzzzz"), ("features", ["zzzzzz"]), ("time_column", "zzzzzz")):
        with pytest.raises(DataError, match="has no column zzzzzz") as caught:
            data(path, **{"target": "when", key: value}).load()
        words = caught.value.hint.removeprefix("type one of ").removeprefix(f"{typed(f'data.{key}', 'when')}, ")
        found = config(typed("data.target", "when"), words).data[key]
        assert found == ([name] if key == "features" else name)


def write(path, row, header="time,price,sales,shop", count=40):
    path.write_text(header + "\n" + "".join(row(k) + "\n" for k in range(count)))
    return str(path)


def refused(path, **options):
    with pytest.raises(DataError) as caught:
        data(path, **{"target": "sales"} | options).load()
    return caught.value.problem.removeprefix(f"{path}: ").removeprefix(f"{path} "), caught.value.hint


def shop(k):
    return f"2024-01-{k % 20 + 1:02d},{k % 5},{k % 7},{'north' if k < 20 else 'south'}"


def test_a_time_or_group_column_that_was_mistyped_or_forgotten_is_what_is_said(tmp_path):
    path = write(tmp_path / "a.csv", shop)
    assert refused(path, time_column="tme") == ("has no column tme", "type data.time_column=time")
    assert refused(path, group_column="shp") == ("has no column shp", "type data.group_column=shop")
    problem, hint = refused(path)
    assert problem == "column time holds the text '2024-01-01' in line 2"
    assert hint == "type data.time_column=time, or name the columns to use: 'data.features=[a,b]'"
    problem, hint = refused(path, time_column="time")
    assert problem == "column shop holds the text 'north' in line 2"
    assert "type data.group_column=shop if it tells series apart" in hint
    data(path, target="sales", time_column="time", group_column="shop", features=["price"]).load()


@pytest.mark.parametrize("date", ["31.12.2024", "12/31/2024 10:00", "2024-12", "2024-12-31T10:00Z"])
def test_whatever_looks_like_a_date_is_one(date, tmp_path):
    path = write(tmp_path / "a.csv", lambda k: f"{date},{k},{k}", "my time,price,sales")
    assert refused(path)[1].startswith("type 'data.time_column=\"my time\"'")


@pytest.mark.parametrize("cell", ["1.234.567", "1,5", "12-3", "v1.2.3"])
def test_and_other_cells_are_none(cell, tmp_path):
    path = write(tmp_path / "a.csv", lambda k: f'"{cell}",{k},{k}', "a,price,sales")
    assert "time_column" not in refused(path)[1]


def test_columns_are_named_once(tmp_path):
    path = write(tmp_path / "a.csv", lambda k: f"{k},{k % 5},{k % 7}", "a,price,sales")
    assert refused(path, target=["sales", "sales"]) == ("data.target names sales twice", "type data.target=sales")
    twice = refused(path, features=["price", "a", "price"])
    assert twice == ("data.features names price twice", "type 'data.features=[price,a]'")
    problem, hint = refused(path, target=[])
    assert problem == "data.target=[] names no column to predict"
    assert hint == "type one of data.target=a, data.target=price, data.target=sales"


def test_what_to_do_without_a_number_at_all(tmp_path):
    path = write(tmp_path / "a.csv", lambda k: f"{k},,{k % 7},{k % 3}", "a,price,sales,x y")
    for missing in ("ffill", "interpolate"):
        without = ("column price has no number at all", "type 'data.features=[a,\"x y\"]'")
        assert refused(path, missing=missing) == without
        assert refused(path, missing=missing, target="price")[1] == "type another data.target"
    assert refused(path, missing="drop") == ("no row is complete: column price is empty", without[1])
    found = refused(path, missing="drop", features=["a"], target="price")
    assert found == ("no row is complete: column price is empty", "type another data.target")
    turns = write(tmp_path / "b.csv", lambda k: f"{k},{k if k % 3 == 0 else ''},{k if k % 3 else ''}", "a,price,sales")
    problem, hint = refused(turns, missing="drop")
    assert problem == "no row is complete: column price has 14 numbers in 40 rows"
    assert hint == "type 'data.features=[a]', or data.missing=ffill"


def test_a_group_without_a_target_is_not_a_matter_of_features(tmp_path):
    path = write(tmp_path / "a.csv", lambda k: f"{k},{k if k < 20 else ''},{'b' if k < 20 else 'c'}", "a,sales,shop")
    problem, hint = refused(path, missing="ffill", group_column="shop")
    assert problem == "column sales of c has no number at all"
    assert hint == "type another data.target, or leave the rows of c out"


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_part_without_rows_is_a_matter_of_its_fraction(part, tmp_path):
    path = write(tmp_path / "a.csv", lambda k: f"{k},{k}", "a,sales")
    problem, hint = refused(path, **{f"{part}_fraction": 0.0})
    assert problem == f"is too short: its {part} part has 0 rows and a window needs 2"
    assert hint == f"type a smaller data.horizon, or a larger data.{part}_fraction"


@pytest.mark.parametrize("word", ["", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "none"])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("gone", [{5, 6, 17}, {0, 1, 30}])
def test_words_for_empty_cells(word, whole, gone, tmp_path, monkeypatch):
    path = write(tmp_path / "a.csv", lambda k: f"{k},{word if k in gone else k % 7},{k}", "a,sales,b")
    if whole:
        monkeypatch.setattr(table, "_read_cells", lambda path: pytest.fail("it was read cell by cell"))
    else:
        monkeypatch.setattr(table, "_read_whole", lambda path: None)
    spec, splits = data(path, target="sales", missing="drop").load()
    kept = [k for k in range(40) if k not in gone]
    raw = splits["train"].series.double().numpy() * spec.input_std + spec.input_mean
    assert raw.round(4).tolist() == [[k % 7, k, k] for k in kept]
    if not whole:
        assert refused(path)[0] == f"column sales has no number in lines {', '.join(str(k + 2) for k in sorted(gone))}"


def test_a_group_may_be_called_na(tmp_path):
    """Of text columns no cell is empty: NA is Namibia."""
    path = write(tmp_path / "a.csv", lambda k: f"{'NA' if k % 2 else 'DE'},{'NA' if k == 9 else k}", "land,sales", 80)
    _, splits = data(path, target="sales", missing="drop", group_column="land").load()
    assert len(splits["train"].series) == 79


def test_blank_lines_of_one_column_are_no_rows(tmp_path):
    (tmp_path / "a.csv").write_text("y\n" + "".join(f"{k if k != 7 else 'NA'}\n\n" for k in range(40)))
    _, splits = data(tmp_path / "a.csv", missing="ffill").load()
    assert len(splits["train"].series) == 40
    problem, _ = refused(tmp_path / "a.csv", target="y")
    assert problem == "column y has no number in line 16"

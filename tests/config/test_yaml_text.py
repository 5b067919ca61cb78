"""What is written as YAML is read back as it was, whatever letters it has."""

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from hpcxrf.config.yaml_text import dump_yaml

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1), VALUES, max_size=3), st.sampled_from([None, True, False]))
@example({"a": {"\x85": None}}, None)
@example({"a": "b\u2028c", "\ufeff": "\u2029"}, True)
def test_what_is_written_is_read_back(value, flow):
    assert yaml.safe_load(dump_yaml(value, default_flow_style=flow, width=110)) == value


def test_letters_of_other_languages_stay_readable():
    assert dump_yaml({"sample": "Blatt µ-XRF 葉"}) == "sample: Blatt µ-XRF 葉\n"

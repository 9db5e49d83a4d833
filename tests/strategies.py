"""Hypothesis strategies for values that every store can keep."""

from hypothesis import strategies as st

from domain.json_values import INTEGER_MAX, Json, JsonObject

storable_text: st.SearchStrategy[str] = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20
)
storable_numbers: st.SearchStrategy[int | float] = st.one_of(
    st.integers(-INTEGER_MAX, INTEGER_MAX), st.floats(allow_nan=False, allow_infinity=False)
)
storable_scalars: st.SearchStrategy[Json] = st.one_of(
    st.none(), st.booleans(), storable_numbers, storable_text
)
storable_json: st.SearchStrategy[Json] = st.recursive(
    storable_scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(storable_text, inner, max_size=5)
    ),
    max_leaves=20,
)
storable_objects: st.SearchStrategy[JsonObject] = st.dictionaries(
    storable_text, storable_json, max_size=5
)

from talos_registry_cache.engine import labels
from toolchain import stack


def test_resources_of_an_upstream_have_the_label_of_the_stack_too() -> None:
    of_stack = labels.of_stack("dev")
    of_upstream = labels.of_upstream("dev", "docker.io")

    assert of_stack == {"talos-registry-cache.stack": "dev"}
    assert of_upstream == {**of_stack, "talos-registry-cache.upstream": "docker.io"}


def test_the_provider_takes_labels_as_a_list() -> None:
    assert labels.inputs({"a": "1", "b": "2"}) == [
        {"label": "a", "value": "1"},
        {"label": "b", "value": "2"},
    ]


def test_the_toolchain_looks_for_the_labels_of_stacks() -> None:
    assert stack.STACK_LABEL == labels.STACK
    assert stack.PROJECT == labels.PROJECT

from talos_registry_cache.engine import labels
from toolchain import stack


def test_the_toolchain_looks_for_the_labels_of_stacks() -> None:
    assert stack.STACK_LABEL == labels.STACK
    assert stack.PROJECT == labels.PROJECT

"""What Pulumi sees: the settings of a stack, and the component resources made from them."""

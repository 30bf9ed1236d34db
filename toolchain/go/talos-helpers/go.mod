module toolchain/talos-helpers

go 1.26.1

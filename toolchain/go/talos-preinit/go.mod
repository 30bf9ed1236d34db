module toolchain/talos-preinit

go 1.26.1

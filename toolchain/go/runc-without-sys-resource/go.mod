module toolchain/runc-without-sys-resource

go 1.26.1

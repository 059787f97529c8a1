# make run, make test: everything a fresh Debian 12 machine with Swift needs.
.PHONY: run test build release demo lint bench

run: release
	exec .build/release/coffer serve

test:
	Scripts/install-dependencies test
	Scripts/test

build:
	swift build --build-tests

release:
	Scripts/install-dependencies run
	Scripts/build-release

demo:
	python3 Scripts/demo.py

lint:
	swift format lint --strict --recursive Sources Tests Package.swift

bench:
	Scripts/install-dependencies bench
	Benchmarks/run

#!/bin/sh
# Type-checks hone-nn with the feature `cuda` on a machine without the CUDA toolkit.
#
# The build scripts of candle-kernels and cudarc want nvcc. What rustc needs of it is only that files are where their
# compiled kernels would be, so a stand-in that writes empty ones is enough to check every line of Rust. It cannot
# link or run. With a toolkit, plain `cargo build --features cuda` is the thing to use.
set -eu
cd "$(dirname "$0")/../.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/bin"
cat > "$scratch/bin/nvcc" <<'NVCC'
#!/bin/sh
output= folder= source=
while [ $# -gt 0 ]; do
    case $1 in
        --version) echo "release 13.0, V13.0.0"; exit 0 ;;
        -o) output=$2; shift ;;
        --output-directory) folder=$2; shift ;;
        *.cu) source=$1 ;;
    esac
    shift
done
[ -z "$folder" ] || output=$folder/$(basename "$source" .cu).ptx
: > "$output"
NVCC
chmod +x "$scratch/bin/nvcc"
# A target folder of its own: kernels compiled by the stand-in must not end up in a real build.
NVCC=$scratch/bin/nvcc CUDA_COMPUTE_CAP=80 CUDARC_CUDA_VERSION=13000 CARGO_TARGET_DIR=target/cuda-check \
    cargo check -p hone-nn --features cuda "$@"

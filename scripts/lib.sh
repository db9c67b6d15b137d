# What the scripts share: where things are, how the metal is built, where guests come from. Sourced, not run.
# shellcheck shell=bash

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
target=$root/target
metal=aarch64-unknown-none-softfloat

# Progress, for people.
note() { printf '%s\n' "$*" >&2; }

# An error, its remedy, and the end.
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Which toolchain builds for the metal: `plain` (the active one has the target's std), `debian` (Debian's rustc with its
# library sources), or nothing. Never asks rustup for anything it does not have.
metal_route() {
    local sysroot version
    if sysroot=$(rustc --print sysroot 2>/dev/null) && [[ -d $sysroot/lib/rustlib/$metal/lib ]]; then
        echo plain
        return
    fi
    if [[ -x /usr/bin/rustc && -x /usr/bin/cargo && -e /usr/bin/ld.lld ]]; then
        version=$(/usr/bin/rustc --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\).*/\1/p')
        if [[ ${version:-0} -ge 88 && -d $(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library ]]; then
            echo debian
        fi
    fi
}

# Runs cargo for the metal: metal_cargo build|clippy ARGS...
metal_cargo() {
    local verb=$1
    shift
    local flags=${RUSTFLAGS:-}
    # No path of this machine in the binary.
    flags="$flags -Cforce-frame-pointers=yes --remap-path-prefix=$root/= --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src/="
    case $(metal_route) in
    plain)
        RUSTFLAGS=$flags CARGO_TARGET_DIR=$target/metal \
            cargo "$verb" --quiet --release --target "$metal" --manifest-path "$root/Cargo.toml" "$@"
        ;;
    debian)
        # build-std on the command line: Debian's cargo would take it from [unstable] too, rustup's stable would not.
        # PATH and CARGO lead past rustup's proxies, which know nothing of these sources.
        env -u RUSTUP_TOOLCHAIN PATH="/usr/bin:$PATH" CARGO=/usr/bin/cargo RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
            CARGO_TARGET_AARCH64_UNKNOWN_NONE_SOFTFLOAT_LINKER=ld.lld RUSTFLAGS="$flags" \
            CARGO_TARGET_DIR="$target/metal" \
            /usr/bin/cargo "$verb" --quiet --release --target "$metal" --manifest-path "$root/Cargo.toml" \
            -Zbuild-std=core,alloc,compiler_builtins -Zbuild-std-features=compiler-builtins-mem "$@"
        ;;
    *)
        die "no Rust toolchain can build for $metal; run scripts/setup"
        ;;
    esac 2> >(grep -v -e 'future version of Rust' -e 'future-incompat-report' -e '^$' >&2)
}

# The host's tool.
tool() {
    cargo run --quiet --manifest-path "$root/Cargo.toml" --package tool -- "$@"
}

# Flattens an ELF file to what a boot loader loads, unless that is done already: flatten ELF OUT
flatten() {
    [[ $2 -nt $1 ]] && return
    mkdir -p "$(dirname -- "$2")"
    tool image "$1" "$2.new"
    mv "$2.new" "$2"
}

# Builds the hypervisor: target/flatland.img, its symbols in $flatland_elf.
flatland_elf=$target/metal/$metal/release/flatland-el2
flatland_image() {
    [[ -e $target/flatland.img ]] || note "building Flatland (the first time takes a minute)"
    metal_cargo build -p flatland --features metal --bin flatland-el2
    flatten "$flatland_elf" "$target/flatland.img"
}

# Builds a bare guest: target/guests/NAME.bin
guest_binary() {
    metal_cargo build -p guests --bin "$1"
    flatten "$target/metal/$metal/release/$1" "$target/guests/$1.bin"
}

# --- Debian's packages for guests, without installing anything on the host ---------------------------------------------

lock=$root/scripts/guests.lock
apt_dir=$target/guests/apt

# The system's own mirror of Debian, as apt knows it: mirror security -> the URI.
mirror() {
    local codename=$1
    apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 2>/dev/null | awk -v name="$codename" '$2 == name { print $1; exit }'
}

debian_codename() {
    # shellcheck disable=SC1091
    (. /etc/os-release 2>/dev/null && [[ ${ID:-} == debian ]] && echo "${VERSION_CODENAME:-}")
}

# A private apt for arm64: guest_apt ARGS...
guest_apt() {
    local tool=$1
    shift
    APT_CONFIG=$apt_dir/apt.conf "$tool" "$@"
}

prepare_guest_apt() {
    local base security keyring=/usr/share/keyrings/debian-archive-keyring.gpg components=${1:-main}
    base=$(mirror bookworm)
    [[ -n $base && -e $keyring ]] || die "this system has no Debian bookworm mirror to fetch guests from; set" \
        "FLATLAND_KERNEL and FLATLAND_INITRD to an arm64 kernel Image and an initrd of your own"
    security=$(mirror bookworm-security)
    mkdir -p "$apt_dir"/{state/lists/partial,cache/archives/partial}
    : >"$apt_dir/state/status"
    cat >"$apt_dir/apt.conf" <<END
APT::Architecture "arm64"; APT::Architectures "arm64"; APT::Sandbox::User "root";
Dir::State "$apt_dir/state"; Dir::State::status "$apt_dir/state/status"; Dir::Cache "$apt_dir/cache";
Dir::Etc::sourcelist "$apt_dir/sources.list"; Dir::Etc::sourceparts "/dev/null"; Dir::Etc::preferencesparts "/dev/null";
Acquire::Languages "none"; Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
END
    {
        echo "deb [signed-by=$keyring] $base bookworm $components"
        [[ -z $security ]] || echo "deb [signed-by=$keyring] $security bookworm-security $components"
    } >"$apt_dir/sources.list"
    guest_apt apt-get update -qq
}

# Fetches the locked package whose name begins with $1 and unpacks it below target/guests/packages: prints where.
locked_package() {
    local package version sum where file
    read -r package version sum < <(grep -E "^$1" "$lock" | head -n 1) || true
    [[ -n ${package:-} ]] || die "$lock has no package $1"
    where=$target/guests/packages/${package}_${version//[:\/]/_}
    if [[ ! -e $where/.done ]]; then
        note "fetching $package $version (arm64, for guests; nothing is installed)"
        [[ -n ${guest_apt_ready:-} ]] || prepare_guest_apt >&2
        guest_apt_ready=1
        rm -rf "$where" && mkdir -p "$where"
        (cd "$where" && guest_apt apt-get download -qq "$package=$version" >&2) ||
            die "$package $version is not on the mirror any more; move the pins with: scripts/setup --update-guests"
        file=$(echo "$where"/*.deb)
        echo "$sum  $file" | sha256sum --quiet -c - >&2 || die "$file is not what $lock says; remove target/guests/packages and try again"
        dpkg-deb -x "$file" "$where/root"
        rm "$file"
        : >"$where/.done"
    fi
    echo "$where/root"
}

# Makes target/guests/linux/{Image,initrd.gz}, from Debian's packages or from what the user names.
linux_guest() {
    local out=$target/guests/linux kernel busybox stage
    mkdir -p "$out"
    if [[ -n ${FLATLAND_KERNEL:-} ]]; then
        cp "$FLATLAND_KERNEL" "$out/Image"
        rm -f "$out/.kernel"
    else
        kernel=$(grep -E '^linux-image-.*cloud' "$lock")
        if [[ ! -e $out/Image || $(cat "$out/.kernel" 2>/dev/null) != "$kernel" ]]; then
            stage=$(locked_package 'linux-image-.*cloud')
            cp "$stage"/boot/vmlinuz-* "$out/Image"
            echo "$kernel" >"$out/.kernel"
        fi
    fi
    if [[ -n ${FLATLAND_INITRD:-} ]]; then
        cp "$FLATLAND_INITRD" "$out/initrd.gz"
        touch -d @0 "$out/initrd.gz"
        return
    fi
    if [[ ! -e $out/initrd.gz || $root/scripts/linux/init -nt $out/initrd.gz || $lock -nt $out/initrd.gz ]]; then
        busybox=$(locked_package busybox-static)
        stage=$(mktemp -d)
        mkdir -p "$stage"/{bin,dev,proc,sys,tmp,run}
        cp "$busybox/bin/busybox" "$stage/bin/busybox"
        cp "$root/scripts/linux/init" "$stage/init"
        chmod 755 "$stage/init" "$stage/bin/busybox"
        find "$stage" -exec touch -h -d @0 {} +
        (cd "$stage" && find . | LC_ALL=C sort | cpio --quiet -o -H newc --reproducible -R 0:0) | gzip -9n >"$out/initrd.gz"
        rm -rf "$stage"
    fi
}

# Makes target/guests/bcm2711-rpi-4-b.dtb: what QEMU's raspi4b and a Pi 4 without its firmware's own boot with.
pi4_tree() {
    local out=$target/guests/bcm2711-rpi-4-b.dtb stage
    [[ -e $out ]] && return
    stage=$(locked_package 'linux-image-[0-9.-]*-arm64')
    cp "$stage"/usr/lib/linux-image-*/broadcom/bcm2711-rpi-4-b.dtb "$out"
}

# What the scripts share: where things are, how the metal is built, where guests come from. Sourced, not run.
# shellcheck shell=bash

# An error within $(...) is an error.
shopt -s inherit_errexit

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

# Runs a command whose words are of interest only if it fails.
quietly() {
    local words
    words=$("$@" 2>&1) || { printf '%s\n' "$words" >&2 && return 1; }
}

# Which toolchain builds for the metal: `plain` (the active one has the target's std), `debian` (Debian's rustc with its
# library sources), or nothing. Never asks rustup for anything it does not have.
metal_route() {
    local sysroot version
    if sysroot=$(RUSTUP_AUTO_INSTALL=0 rustc --print sysroot 2>/dev/null) && [[ -d $sysroot/lib/rustlib/$metal/lib ]]; then
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
    # Of what is called once in a while, a copy is enough: half the size up to which opt-level "s" copies a function into
    # its callers saves 13 KiB, and a quarter of that for those that ask for it, of libraries mostly, 5 more. What runs at
    # every exit says #[inline(always)] itself.
    flags="$flags -Cllvm-args=-inline-threshold=25 -Cllvm-args=-inlinehint-threshold=90"
    # No path of this machine in the binary.
    flags="$flags -Cforce-frame-pointers=yes --remap-path-prefix=$root/= --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src/="
    case $(metal_route) in
    plain)
        RUSTFLAGS=$flags CARGO_TARGET_DIR=${metal_target:-$target/metal} \
            cargo "$verb" --quiet --release --target "$metal" --manifest-path "$root/Cargo.toml" "$@"
        ;;
    debian)
        # build-std on the command line: Debian's cargo would take it from [unstable] too, rustup's stable would not.
        # PATH and CARGO lead past rustup's proxies, which know nothing of these sources.
        flags="$flags --remap-path-prefix=/usr/lib/rustlib/src/rust/library/="
        env -u RUSTUP_TOOLCHAIN PATH="/usr/bin:$PATH" CARGO=/usr/bin/cargo RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
            CARGO_TARGET_AARCH64_UNKNOWN_NONE_SOFTFLOAT_LINKER=ld.lld RUSTFLAGS="$flags" \
            CARGO_TARGET_DIR="${metal_target:-$target/metal}" \
            /usr/bin/cargo "$verb" --quiet --release --target "$metal" --manifest-path "$root/Cargo.toml" \
            -Zbuild-std=core,alloc,compiler_builtins -Zbuild-std-features=compiler-builtins-mem,optimize_for_size "$@"
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
    tool image "$1" "$2.$$"
    mv "$2.$$" "$2"
}

# Builds the hypervisor: target/flatland.img, its symbols in $flatland_elf.
flatland_elf=$target/metal/$metal/release/flatland-el2
flatland_image() {
    [[ -e $target/flatland.img ]] || note "building Flatland (the first time takes a minute)"
    metal_cargo build -p flatland --features metal --bin flatland-el2
    flatten "$flatland_elf" "$target/flatland.img"
}

# Builds one that counts how long interrupts are masked: target/masked.img.
masked_image() {
    metal_target=$target/masked metal_cargo build -p flatland --features metal,masked --bin flatland-el2
    flatten "$target/masked/$metal/release/flatland-el2" "$target/masked.img"
}

# Builds a bare guest: target/guests/NAME.bin
guest_binary() {
    metal_cargo build -p guests --bin "$1"
    flatten "$target/metal/$metal/release/$1" "$target/guests/$1.bin"
}

# --- Debian's packages for guests, without installing anything on the host ---------------------------------------------

lock=$root/scripts/guests.lock
apt_dir=$target/guests/apt
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# Writes the configuration of an apt of our own in DIR, which leaves the system's alone: private_apt DIR SETTINGS
private_apt() {
    mkdir -p "$1"/{lists,archives}/partial
    cat >"$1/apt.conf" <<END
Dir::State::lists "$1/lists"; Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";
Dir::Etc::sourcelist "$1/sources.list"; Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "$1/preferences"; Dir::Etc::preferencesparts "/dev/null";
Acquire::Languages "none"; Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false"; APT::Sandbox::User "root";
$2
END
}

# The mirrors this system's apt has, as lines `LABEL URI`, where LABEL is Debian or Debian-Security. A fresh container
# has no package lists yet, and apt does not know what its sources are before it has them: they are fetched privately.
mirrors() {
    local options=() lists=$target/mirrors/lists
    # shellcheck disable=SC2016 # the names are for apt, not for the shell
    list_mirrors() { apt-get "${options[@]}" indextargets --format '$(LABEL) $(REPO_URI)' | sort -u | grep ^Debian; }
    command -v apt-get >/dev/null || return 0
    list_mirrors && return
    mkdir -p "$lists/partial"
    options=(-o "Dir::State::lists=$lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
        -o APT::Sandbox::User=root -o Acquire::Languages=none)
    quietly apt-get "${options[@]}" update -qq || return 0
    list_mirrors || true
}

# Writes the sources of a private apt, with the system's mirrors: sources FILE COMPONENTS SUITE... Fails if apt knows none.
sources() {
    local file=$1 components=$2 known suite label uri
    shift 2
    known=$(mirrors)
    [[ -e $keyring ]] || return
    for suite in "$@"; do
        label=Debian
        [[ $suite != *-security ]] || label=Debian-Security
        uri=$(awk -v label=$label '$1 == label && $2 != "Backports" { print $2; exit }' <<<"$known")
        [[ -z $uri ]] || echo "deb [signed-by=$keyring] $uri $suite $components"
    done >"$file"
    [[ -s $file ]]
}

# A private apt for arm64: guest_apt TOOL ARGS...
guest_apt() { APT_CONFIG=$apt_dir/apt.conf "$@"; }

prepare_guest_apt() {
    local suites
    private_apt "$apt_dir" "APT::Architecture \"arm64\"; APT::Architectures \"arm64\"; Dir::Cache \"$apt_dir\";
Dir::State \"$apt_dir\"; Dir::State::status \"$apt_dir/status\"; Dir::Etc::preferencesparts \"/dev/null\";"
    : >"$apt_dir/status"
    suites=$(awk '!/^#/ { print $5; sub(/-.*/, "", $5); print $5; print $5 "-security" }' "$lock" | sort -u)
    # shellcheck disable=SC2086 # one word for each suite
    sources "$apt_dir/sources.list" "main non-free-firmware" $suites || die "this system's apt has no mirror of Debian to" \
        "fetch guests from; set FLATLAND_KERNEL and FLATLAND_INITRD to an arm64 kernel Image and an initrd of your own"
    # Of a suite that is not the first package's, what the lock has of it and nothing else.
    awk '!/^#/ { sub(/-.*/, "", $5); first = first == "" ? $5 : first }
        !/^#/ && $5 != first { print "Package: *\nPin: release n=" $5 "*\nPin-Priority: -1\n"
            print "Package: " $1 "\nPin: release n=" $5 "*\nPin-Priority: 500\n" }' "$lock" >"$apt_dir/preferences"
    quietly guest_apt apt-get update -qq || die "apt could not fetch Debian's package lists for arm64 (see above)"
    : >"$apt_dir/ready"
}

# The line of the lock for the package whose name PATTERN matches.
locked() { grep -E "^$1 " "$lock" | head -n 1; }

# Fetches the locked package whose name PATTERN matches, and unpacks it, or only the files named, below
# target/guests/packages, unless the same was done before: locked_package PATTERN [FILE-GLOB]... Prints where.
locked_package() {
    local line package version sum where new file tool
    line=$(locked "$1") || die "$lock has no package $1"
    shift
    read -r package version sum _ <<<"$line"
    where=$target/guests/packages/${package}_${version//[:\/]/_}
    # What is there may have been unpacked for something else.
    if [[ ! -e $where/.done || $(<"$where/.done") != "$*" ]]; then
        for tool in apt-get dpkg-deb; do
            command -v $tool >/dev/null || die "guests are fetched from Debian, with apt and dpkg; set FLATLAND_KERNEL and" \
                "FLATLAND_INITRD to an arm64 kernel Image and an initrd of your own"
        done
        note "fetching $package $version (arm64, for guests; nothing is installed)"
        # Fetched lately, and for these suites.
        [[ -n $(find "$apt_dir/ready" -mmin -60 -newer "$lock" 2>/dev/null) ]] || prepare_guest_apt
        new=$where.$$
        rm -rf "$new" && mkdir -p "$new/root"
        if ! (cd "$new" && guest_apt apt-get download -qq "$package=$version" >&2); then
            rm -rf "$new"
            # Not there, or not reached.
            guest_apt apt-cache madison "$package" | grep -qF "| $version |" && die "$package could not be fetched (see above)"
            die "$package $version is not on the mirror any more; move the pins with: scripts/setup --update-guests"
        fi
        file=$(echo "$new"/*.deb)
        if [[ $(sha256sum <"$file") != "$sum  -" ]]; then
            rm -rf "$new"
            die "the mirror's $package $version is not what $lock says it is"
        fi
        dpkg-deb --fsys-tarfile "$file" | tar -x -C "$new/root" --wildcards "$@"
        rm "$file"
        echo "$*" >"$new/.done"
        # Whole or not at all: another run may be doing the same.
        rm -rf "$where"
        mv -T "$new" "$where" 2>/dev/null || rm -rf "$new"
    fi
    echo "$where/root"
}

# Copies a file of the user's to where it is used, unless it is there already: own FILE OUT
own() {
    [[ -f $1 ]] || die "there is no $1, which FLATLAND_KERNEL or FLATLAND_INITRD names"
    cmp -s "$1" "$2" && return
    cp "$1" "$2.$$"
    mv "$2.$$" "$2"
}

# The kernel for guests, and of its modules those that lead to the balloon, to disks and to networks. Prints where.
kernel_package() {
    locked_package 'linux-image-.*-cloud-arm64' './boot/vmlinuz-*' \
        './lib/modules/*/kernel/drivers/virtio/virtio'{,_ring,_mmio,_balloon}.ko \
        './lib/modules/*/kernel/drivers/block/virtio_blk.ko' \
        './lib/modules/*/kernel/drivers/net/'{net_failover,virtio_net}.ko './lib/modules/*/kernel/net/core/failover.ko'
}

# Lays out what is in every initramfs below DIR: stage_initramfs DIR BUSYBOX
stage_initramfs() {
    rm -rf "$1"
    install -d -m 755 "$1"/{,bin,dev,lib,lib/modules,proc,sys,tmp}
    install -m 755 "$2" "$1/bin/busybox"
    install -m 755 "$root/scripts/linux/init" "$1/init"
}

# Writes what is below DIR as an archive that Linux unpacks, and removes it. The same input makes the same bytes.
pack_initramfs() {
    find "$1" -exec touch -h -d @0 {} +
    (cd "$1" && find . | LC_ALL=C sort | cpio --quiet -o -H newc --reproducible -R 0:0)
    rm -rf "$1"
}

# Makes the initramfs from a busybox and modules: initramfs OUT BUSYBOX [MODULE]...
initramfs() {
    local out=$1 stage=$1.stage.$$
    stage_initramfs "$stage" "$2"
    shift 2
    (($# == 0)) || install -m 644 "$@" "$stage/lib/modules/"
    pack_initramfs "$stage" | gzip -9n >"$out.$$"
    mv "$out.$$" "$out"
}

# Makes target/guests/linux/{Image,initrd.gz}, from Debian's packages or from what the user names. Each has a file
# beside it that says what it was made from.
linux_guest() {
    local out=$target/guests/linux from stage busybox modules=()
    mkdir -p "$out"
    if [[ -n ${FLATLAND_KERNEL:-} ]]; then
        rm -f "$out/Image.from"
        own "$FLATLAND_KERNEL" "$out/Image"
    else
        from=$(locked 'linux-image-.*-cloud-arm64') || die "$lock has no kernel"
        if [[ ! -e $out/Image || $(cat "$out/Image.from" 2>/dev/null) != "$from" ]]; then
            stage=$(kernel_package)
            rm -f "$out/Image.from"
            own "$(echo "$stage"/boot/vmlinuz-*)" "$out/Image"
            echo "$from" >"$out/Image.from"
        fi
    fi
    if [[ -n ${FLATLAND_INITRD:-} ]]; then
        rm -f "$out/initrd.from"
        own "$FLATLAND_INITRD" "$out/initrd.gz"
    else
        # Modules belong to one kernel: one of the user's gets none, and has no file that says what it was made from.
        from="$(cat "$out/Image.from" 2>/dev/null || true) $(locked busybox-static) modules"
        from+=" $(sha256sum <"$root/scripts/linux/init")"
        if [[ ! -e $out/initrd.gz || $(cat "$out/initrd.from" 2>/dev/null) != "$from" ]]; then
            busybox=$(locked_package busybox-static ./bin/busybox)/bin/busybox
            if [[ -e $out/Image.from ]]; then
                stage=$(kernel_package)
                modules=("$stage"/lib/modules/*/kernel/drivers/virtio/*.ko)
            fi
            rm -f "$out/initrd.from"
            initramfs "$out/initrd.gz" "$busybox" "${modules[@]}"
            echo "$from" >"$out/initrd.from"
        fi
    fi
}

# Says what an initramfs with all modules is made from.
modules_from() {
    echo "$(cat "$target/guests/linux/Image.from" 2>/dev/null) $(locked busybox-static) $(sha256sum <"$root/scripts/linux/init") 1"
}

# Makes an initramfs with all modules that kernel_package has: modules_initramfs OUT
modules_initramfs() {
    local stage files
    [[ -e $target/guests/linux/Image.from ]] || die "the modules for disks and networks belong to Debian's kernel; leave FLATLAND_KERNEL out"
    stage=$(kernel_package)
    mapfile -t files < <(find "$stage" -name '*.ko')
    initramfs "$1" "$(locked_package busybox-static ./bin/busybox)/bin/busybox" "${files[@]}"
}

# Makes target/guests/disk/initrd.gz, for a guest that has disks, and root.ext4, an image for these: files of text, as many bytes
# of noise, and the sums of both. The same each time.
disk_guest() {
    local out=$target/guests/disk from stage n
    mkdir -p "$out"
    from=$(modules_from)
    [[ -e $out/root.ext4 && $(cat "$out/from" 2>/dev/null) == "$from" ]] && return
    rm -f "$out/from"
    modules_initramfs "$out/initrd.gz"
    stage=$out/root.stage.$$
    rm -rf "$stage" && mkdir -p "$stage/data"
    for n in {1..12}; do
        seq "$((n * 100000))" "$((n * 100000 + 70000))" >"$stage/data/text-$n"
        seq "$((n * 1000000))" "$((n * 1000000 + 500000))" | gzip -9n >"$stage/data/noise-$n"
    done
    (cd "$stage/data" && sha256sum -- * >../SUMS)
    find "$stage" -exec touch -h -d @0 {} +
    # As a file system of the same identity, made at the same time.
    truncate -s 32M "$out/root.$$"
    E2FSPROGS_FAKE_TIME=1 mke2fs -q -t ext4 -b 4096 -d "$stage" -E hash_seed=00000000-0000-4000-8000-000000000001,root_owner=0:0 \
        -U 00000000-0000-4000-8000-000000000002 -L flatland "$out/root.$$"
    mv "$out/root.$$" "$out/root.ext4"
    rm -rf "$stage"
    echo "$from" >"$out/from"
}

# Makes target/guests/net/initrd.gz, for a guest that has a network device.
net_guest() {
    local out=$target/guests/net from
    mkdir -p "$out"
    from=$(modules_from)
    [[ -e $out/initrd.gz && $(cat "$out/from" 2>/dev/null) == "$from" ]] && return
    rm -f "$out/from"
    modules_initramfs "$out/initrd.gz"
    echo "$from" >"$out/from"
}

# Makes target/guests/linux/Image-6.12: Debian's newer kernel, for guests of which many are to be alike. Trees of events
# that 6.1 makes at boot are 8 MB of each guest, and different in each; 6.12 makes them when they are asked for.
newer_kernel() {
    local out=$target/guests/linux/Image-6.12 from stage
    mkdir -p "$target/guests/linux"
    from=$(locked 'linux-image-6.12[^ ]*-arm64') || die "$lock has no newer kernel"
    [[ -e $out && $(cat "$out.from" 2>/dev/null) == "$from" ]] && return
    stage=$(locked_package 'linux-image-6.12[^ ]*-arm64' './boot/vmlinuz-*')
    own "$(echo "$stage"/boot/vmlinuz-*)" "$out"
    echo "$from" >"$out.from"
}

# Prints the libraries that a program needs, and those that they need, as lines `NAME FILE`, where FILE is below one of
# the directories: libraries PROGRAM DIR...
libraries() {
    local todo=("$1") names name file
    local -A seen=()
    shift
    while ((${#todo[@]})); do
        names=$(readelf -d "${todo[0]}" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
        for name in $names; do
            [[ -z ${seen[$name]:-} ]] || continue
            file=$(find "$@" -name "$name" -print -quit)
            [[ -n $file ]] || die "${todo[0]##*/} needs $name, which no package of $lock has"
            seen[$name]=$file
            todo+=("$file")
            echo "$name $file"
        done
        todo=("${todo[@]:1}")
    done
}

# Adds a program of a package and the libraries that it needs, as the lock has them: stage_program DIR PACKAGE FILE
stage_program() {
    local stage=$1 program package packages=() needed name file
    program=$(locked_package "$2" "./$3")/$3
    while read -r package; do
        packages+=("$(locked_package "${package//+/[+]}" './*lib/aarch64-linux-gnu/*.so*')")
    done < <(awk '$6 != "" && $1 ~ /^(lib|zlib)/ { print $1 }' "$lock")
    needed=$(libraries "$program" "${packages[@]}")
    install -m 755 "$program" "$stage/bin/"
    while read -r name file; do install -m 755 "$file" "$stage/lib/$name"; done <<<"$needed"
}

# Makes target/guests/debug/initrd.cpio, for a guest that is debugged: gdb and perf. Not compressed, as below.
debug_guest() {
    local out=$target/guests/debug/initrd.cpio from stage
    mkdir -p "${out%/*}"
    from="$(awk '$6 != ""' "$lock") $(locked busybox-static) $(sha256sum <"$root/scripts/linux/init")"
    [[ -e $out && $(cat "$out.from" 2>/dev/null) == "$from" ]] && return
    stage=$out.stage.$$
    stage_initramfs "$stage" "$(locked_package busybox-static ./bin/busybox)/bin/busybox"
    stage_program "$stage" gdb-minimal usr/bin/gdb
    stage_program "$stage" linux-perf usr/bin/perf
    rm -f "$out.from"
    pack_initramfs "$stage" >"$out.$$"
    mv "$out.$$" "$out"
    echo "$from" >"$out.from"
}

# Makes target/guests/kvm/initrd.cpio, for a guest that has a guest of its own under KVM: QEMU with its libraries, and
# what makes the guest's guests, which are the same as other guests. Not compressed: that would take longer to unpack.
kvm_guest() {
    local out=$target/guests/kvm/initrd.cpio linux=$target/guests/linux
    local from stage
    mkdir -p "${out%/*}"
    from="$(awk '$6 == "vmm"' "$lock") $(locked busybox-static) $(sha256sum "$linux"/{Image,initrd.gz} | cut -c1-64)"
    guest_binary bench
    from+=" $(cat "$root/scripts/linux/init" "$target/guests/bench.bin" | sha256sum)"
    [[ -e $out && $(cat "$out.from" 2>/dev/null) == "$from" ]] && return
    stage=$out.stage.$$
    stage_initramfs "$stage" "$(locked_package busybox-static ./bin/busybox)/bin/busybox"
    stage_program "$stage" qemu-system-arm usr/bin/qemu-system-aarch64
    install -d -m 755 "$stage/l2"
    install -m 644 "$linux"/{Image,initrd.gz} "$target/guests/bench.bin" "$stage/l2/"
    rm -f "$out.from"
    pack_initramfs "$stage" >"$out.$$"
    mv "$out.$$" "$out"
    echo "$from" >"$out.from"
}

# Makes target/guests/kvm/debug.cpio: the same, and what makes a guest's guest that is debugged.
kvm_debug_guest() {
    local out=$target/guests/kvm/debug.cpio stage
    debug_guest
    [[ -e $out && $out -nt $target/guests/kvm/initrd.cpio && $out -nt $target/guests/debug/initrd.cpio ]] && return
    stage=$out.stage.$$
    install -d -m 755 "$stage/l2"
    install -m 644 "$target/guests/debug/initrd.cpio" "$stage/l2/debug.cpio"
    # Linux unpacks one archive behind the other.
    { cat "$target/guests/kvm/initrd.cpio" && pack_initramfs "$stage"; } >"$out.$$"
    mv "$out.$$" "$out"
}

# Makes target/guests/xen/xen: Debian's Xen.
xen_guest() {
    local out=$target/guests/xen/xen from
    mkdir -p "${out%/*}"
    from=$(locked 'xen-hypervisor-[^ ]*-arm64') || die "$lock has no Xen"
    [[ -e $out && $(cat "$out.from" 2>/dev/null) == "$from" ]] && return
    own "$(echo "$(locked_package 'xen-hypervisor-[^ ]*-arm64' './boot/xen-*-arm64')"/boot/xen-*-arm64)" "$out"
    echo "$from" >"$out.from"
}

# Makes target/guests/firmware: U-Boot and an environment that boots the kernel that the VM has in RAM; EDK2.
firmware_guest() {
    local out=$target/guests/firmware from env
    mkdir -p "$out"
    from="$(locked u-boot-qemu) $(locked qemu-efi-aarch64) 1"
    [[ -e $out/u-boot.env && $(cat "$out/from" 2>/dev/null) == "$from" ]] && return
    rm -f "$out/from"
    own "$(locked_package u-boot-qemu ./usr/lib/u-boot/qemu_arm64/u-boot.bin)/usr/lib/u-boot/qemu_arm64/u-boot.bin" "$out/u-boot.fd"
    own "$(locked_package qemu-efi-aarch64 ./usr/share/qemu-efi-aarch64/QEMU_EFI.fd)/usr/share/qemu-efi-aarch64/QEMU_EFI.fd" \
        "$out/edk2.fd"
    # The CRC-32 of 256 KiB but for itself, then the variables. gzip ends with a CRC-32 and a length.
    env=$out/u-boot.env.$$
    {
        printf '%s\0' 'bootcmd=booti 0x40200000 - 0x40000000' bootdelay=2 fdt_high=0xffffffffffffffff
        head -c 262140 /dev/zero
    } | head -c 262140 >"$env.data"
    { gzip -c "$env.data" | tail -c 8 | head -c 4 && cat "$env.data"; } >"$env"
    rm "$env.data"
    mv "$env" "$out/u-boot.env"
    echo "$from" >"$out/from"
}

# Makes target/guests/bcm2711-rpi-4-b.dtb: what QEMU's raspi4b and a Pi 4 without its firmware's own boot with.
pi4_tree() {
    local out=$target/guests/bcm2711-rpi-4-b.dtb from stage
    from=$(locked 'linux-image-[0-9.-]*-arm64') || die "$lock has no kernel for a Raspberry Pi"
    [[ -e $out && $(cat "$out.from" 2>/dev/null) == "$from" ]] && return
    stage=$(locked_package 'linux-image-[0-9.-]*-arm64' './usr/lib/linux-image-*/broadcom/bcm2711-rpi-4-b.dtb')
    own "$(echo "$stage"/usr/lib/linux-image-*/broadcom/bcm2711-rpi-4-b.dtb)" "$out"
    echo "$from" >"$out.from"
}

# Writes a manifest of N idle Debian guests that are all the same: merge_manifest N. What their kernels put at places
# left to chance is left where it is in all (nokaslr, norandmaps), and their slabs are as small as they can be.
merge_manifest() {
    local names=(one two three four five six seven eight nine ten) name
    cat <<END
// Debian guests that are all the same and idle, for a minute: what of their memory is merged?
// --mem 2G
/dts-v1/;
/ {
    compatible = "flatland,bundle-1";
    vms {
END
    for name in "${names[@]:0:$1}"; do
        cat <<END
        $name {
            memory = "128M"; domain = "lab";
            kernel = "linux/Image-6.12"; initrd = "linux/initrd.gz";
            bootargs = "console=ttyAMA0 quiet panic=-1 nokaslr norandmaps slub_max_order=0 flatland.mode=idle seconds=60 balloon=off";
        };
END
    done
    printf '    };\n};\n'
}

# Prints where the manifest of an example is, if there is one of this name; those called merge-N are made here.
example_manifest() {
    local out=$root/scripts/examples/$1.dts
    if [[ $1 =~ ^merge-([1-9]|10)$ ]]; then
        out=$target/bundles/$1.dts
        mkdir -p "$target/bundles"
        merge_manifest "${BASH_REMATCH[1]}" >"$out.$$"
        mv "$out.$$" "$out"
    fi
    [[ ! -f $out ]] || echo "$out"
}

# Makes the bundle of a manifest, and its images where it names them: bare guests NAME.bin, Debian's Linux, Flatland itself
# and its bundles NAME.cpio. Prints where.
example_bundle() {
    local dts=$1 out name inner
    name=$(basename "$dts" .dts)
    out=$target/bundles/$name.cpio
    for name in $(grep -o '"[a-z0-9-]*\.bin"' "$dts" | tr -d '"' | sort -u); do
        guest_binary "${name%.bin}"
    done
    if grep -q '"linux/' "$dts"; then linux_guest; fi
    if grep -q '"linux/Image-6.12"' "$dts"; then newer_kernel; fi
    if grep -q '"kvm/' "$dts"; then kvm_guest; fi
    if grep -q '"firmware/' "$dts"; then firmware_guest; fi
    if grep -q '"debug/' "$dts"; then debug_guest; fi
    if grep -q '"disk/' "$dts"; then disk_guest; fi
    if grep -q '"net/' "$dts"; then net_guest; fi
    if grep -q '"xen/' "$dts"; then xen_guest; fi
    if grep -q '"kvm/debug' "$dts"; then kvm_debug_guest; fi
    # A Flatland in a VM has a bundle of its own.
    if grep -q '"flatland.img"' "$dts"; then flatland_image; fi
    for inner in $(grep -o '"[a-z0-9-]*\.cpio"' "$dts" | tr -d '"' | sort -u); do
        name=$root/scripts/examples/inner/${inner%.cpio}.dts
        [[ -f $name ]] || name=$(dirname "$dts")/${inner%.cpio}.dts
        example_bundle "$name" >/dev/null
    done
    mkdir -p "$target/bundles"
    # Whole or not at all: another run may be reading it.
    tool bundle "$dts" -o "$out.$$" -I "$target/guests" -I "$target/bundles" -I "$target" >&2
    mv "$out.$$" "$out"
    echo "$out"
}

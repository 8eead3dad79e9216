#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run_avx512.sh PROGRAM [ARG...]
# Runs a statically linked x86-64 Linux program on an emulated CPU with AVX-512 F/CD/BW/DQ/VL (Debian's Bochs, model
# Skylake-X), whatever the host's CPU; prints the program's output and exits with its status (124: timed out).
# Nothing is installed: the Debian 12 packages are downloaded and unpacked below RIG_DIR, once (apt's package lists must
# be there: apt-get update). The guest is a Debian kernel with a RAM disk: no network, no files but the program's.
#   RIG_DIR      folder for the unpacked packages, kept between runs (default: ${TMPDIR:-/tmp}/avx512-rig-<uid>)
#   RIG_TIMEOUT  seconds of real time allowed for the boot and the run together (default 600)
#   RIG_CPU      Bochs CPU model (default corei7_skylake_x; corei7_haswell_4770: AVX2 without AVX-512)
#   RIG_MEM      guest memory in MiB (default 512)
#   RIG_ENV      environment of the program, e.g. 'GTEST_COLOR=no OMP_NUM_THREADS=1'
#   RIG_FILES    more files for the program's working folder, space-separated
#   RIG_KEEP     non-empty: keep the run's folder (Bochs's log, ISO image, raw console) and name it
set -euo pipefail

[[ $# -ge 1 ]] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }
program=$1; shift
[[ -f $program && -x $program ]] || { echo "run_avx512: no such program: $program" >&2; exit 2; }
if LC_ALL=C readelf -lW "$program" 2>/dev/null | grep -q INTERP; then
  echo "run_avx512: $program is not statically linked" >&2; exit 2
fi
rig=${RIG_DIR:-${TMPDIR:-/tmp}/avx512-rig-$UID}
mkdir -p "$rig"; rig=$(cd "$rig" && pwd)
root=$rig/root; lib=$root/usr/lib/x86_64-linux-gnu

# 1. Unpack the emulator, a kernel, busybox and the ISO tools.
exec 9>"$rig/.lock"; flock 9
if [[ ! -e $rig/.ready ]]; then
  echo "run_avx512: unpacking the emulator into $rig" >&2
  rm -rf "$rig/deb" "$root"; mkdir -p "$rig/deb/partial" "$root"
  kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ {print $2; exit}')
  apt=(apt-get -q -y -o APT::Sandbox::User= -o Debug::NoLocking=1)
  # The first call brings the libraries the host lacks too (GTK, which Debian's bochs is linked to).
  (cd "$rig/deb" && "${apt[@]}" -o Dir::Cache::archives="$rig/deb" install -d --reinstall --no-install-recommends \
      bochs bochs-term seabios genisoimage cpio && "${apt[@]}" download isolinux syslinux-common busybox-static \
      "$kernel") >"$rig/apt.log" 2>&1 || { cat "$rig/apt.log" >&2; exit 2; }
  for deb in "$rig"/deb/*.deb; do dpkg -x "$deb" "$root"; done
  rm -rf "$rig/deb"; touch "$rig/.ready"
fi
flock -u 9
host() { LD_LIBRARY_PATH=$lib "$@"; }

# 2. The RAM disk: /init mounts what a program may look for, runs it on the serial console, reports and powers off.
run=$(mktemp -d "$rig/run.XXXXXX")
bochs=
trap '[[ -z $bochs ]] || kill "$bochs" 2>/dev/null || :
  if [[ -n ${RIG_KEEP:-} ]]; then echo "run_avx512: kept $run" >&2; else rm -rf "$run"; fi' EXIT
mkdir -p "$run"/{ram/{bin,dev,proc,sys,tmp,job},iso}
cp "$root/bin/busybox" "$run/ram/bin/"; cp "$program" "$run/ram/job/program"
for file in ${RIG_FILES:-}; do cp "$file" "$run/ram/job/"; done
cat >"$run/ram/init" <<EOF
#!/bin/busybox sh
bb=/bin/busybox
\$bb mount -t proc proc /proc; \$bb mount -t sysfs sys /sys; \$bb mount -t devtmpfs dev /dev; \$bb mount -t tmpfs tmp /tmp
exec </dev/null >/dev/ttyS0 2>&1
cd /job; \$bb echo RIG-BEGIN
\$bb env HOME=/tmp ${RIG_ENV:-} ./program ${*@Q}
status=\$?; \$bb echo; \$bb echo RIG-EXIT:\$status
exec >/dev/null 2>&1; \$bb poweroff -f
EOF
chmod +x "$run/ram/init"
(cd "$run/ram" && find . | host "$root/bin/cpio" --quiet -o -H newc) >"$run/iso/initrd"

# 3. The boot medium. clearcpuid: Bochs 2.7 reports a wrong size for the compacted XSAVE area, and Linux then turns all of
# XSAVE, hence AVX, off. notests: the self-tests of the crypto code would take as long as the rest of the boot.
cp "$root"/boot/vmlinuz-* "$run/iso/vmlinuz"
cp "$root/usr/lib/ISOLINUX/isolinux.bin" "$root/usr/lib/syslinux/modules/bios/ldlinux.c32" "$run/iso/"
cat >"$run/iso/isolinux.cfg" <<EOF
default rig
label rig
  kernel vmlinuz
  append initrd=initrd console=ttyS0,115200 ${RIG_LOG:-quiet loglevel=3} mitigations=off nokaslr norandmaps clearcpuid=xsaves,xsavec cryptomgr.notests no_timer_check nosmp tsc=reliable lpj=1000000 random.trust_cpu=on panic=-1
EOF
host "$root/usr/bin/genisoimage" -quiet -o "$run/rig.iso" -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 \
  -boot-info-table "$run/iso"

# 4. Boot it, the serial port going to a file, and print what the program writes as it comes. This Bochs has the debugger
# built in ("c" lets it run) and wants a terminal (script makes one); it calls the guest's power-off a panic and ends.
cat >"$run/bochsrc" <<EOF
display_library: term
cpu: model=${RIG_CPU:-corei7_skylake_x}, count=1, ips=10000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest=${RIG_MEM:-512}, host=${RIG_MEM:-512}
romimage: file=$root/usr/share/seabios/bios.bin
vgaromimage: file=$root/usr/share/seabios/vgabios-stdvga.bin
ata0-master: type=cdrom, path=$run/rig.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$run/console
clock: sync=none
log: $run/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
EOF
echo c >"$run/commands"; : >"$run/console"
TERM=vt100 LD_LIBRARY_PATH=$lib LTDL_LIBRARY_PATH=$lib/bochs/plugins BXSHARE=$root/usr/share/bochs \
  timeout -k 5 "${RIG_TIMEOUT:-600}" script -qefc "exec '$root/usr/bin/bochs-bin' -q -f '$run/bochsrc' -rc '$run/commands'" \
  "$run/screen" </dev/null >/dev/null 2>&1 &
bochs=$!
tail -q -s 0.2 -c +1 -f --pid=$bochs "$run/console" | sed -u -n 's/\r*$//;/^RIG-BEGIN$/,/^RIG-EXIT:/{/^RIG-BEGIN$/!p}'
ended=0; wait $bochs || ended=$?
status=$(tr -d '\r' <"$run/console" | sed -n 's/^RIG-EXIT:\([0-9]*\)$/\1/p' | tail -1)
[[ -n $status ]] && exit "$status"
[[ $ended = 124 || $ended = 137 ]] && { echo "run_avx512: timed out" >&2; exit 124; }
echo "run_avx512: the emulator ended early; its log and console:" >&2
tail -n 20 "$run/bochs.log" "$run/console" >&2
exit 125

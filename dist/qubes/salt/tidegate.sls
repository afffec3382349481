# Makes sys-tidegate beside sys-firewall, as tidegate-setup does. No qube is moved, no default is set.
#   sudo qubesctl top.enable tidegate
#   sudo qubesctl --targets dom0 state.apply
{% set kernel = salt['cmd.shell']('cd /var/lib/qubes/vm-kernels && ls -d tidegate-* | sort -V | tail -n 1') %}

sys-tidegate:
  qvm.vm:
    - present:
      - class: StandaloneVM
      - label: orange
    - prefs:
      - kernel: {{ kernel }}
      - kernelopts: ''
      - memory: 32
      - maxmem: 32
      - vcpus: 1
      - virt-mode: pvh
      - provides-network: true
      - netvm: sys-net
      - include-in-backups: true
    - features:
      - enable:
        - qubes-firewall
        - no-default-kernelopts
        - skip-update
      - disable:
        - gui

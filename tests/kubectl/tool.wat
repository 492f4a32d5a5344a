;; Copies standard input to standard output. With arguments beyond its name and one more, says so on standard error and exits with how
;; many they are.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 2)
  (data (i32.const 64) "err\n")
  (func $say (param $fd i32) (param $at i32) (param $length i32)
    (loop $more
      (i32.store (i32.const 16) (local.get $at))
      (i32.store (i32.const 20) (local.get $length))
      (if (call $write (local.get $fd) (i32.const 16) (i32.const 1) (i32.const 24)) (then return))
      (local.set $at (i32.add (local.get $at) (i32.load (i32.const 24))))
      (local.set $length (i32.sub (local.get $length) (i32.load (i32.const 24))))
      (br_if $more (local.get $length))))
  (func (export "_start")
    (block $end
      (loop $next
        (i32.store (i32.const 0) (i32.const 1024))
        (i32.store (i32.const 4) (i32.const 65536))
        (br_if $end (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (br_if $end (i32.eqz (i32.load (i32.const 8))))
        (call $say (i32.const 1) (i32.const 1024) (i32.load (i32.const 8)))
        (br $next)))
    (drop (call $args (i32.const 32) (i32.const 36)))
    (if (i32.gt_u (i32.load (i32.const 32)) (i32.const 2)) (then
      (call $say (i32.const 2) (i32.const 64) (i32.const 4))
      (call $exit (i32.sub (i32.load (i32.const 32)) (i32.const 2)))))))

;; Runs to success where the setting COLOUR is a text of five letters and all settings together are at least one.
(component
  (import "wasi:config/store@0.2.0-rc.1" (instance $config
    (type $e (variant (case "upstream" string) (case "io" string)))
    (export "error" (type $error (eq $e)))
    (export "get" (func (param "key" string) (result (result (option string) (error $error)))))
    (export "get-all" (func (result (result (list (tuple string string)) (error $error)))))))
  (core module $memory (memory (export "memory") 1) (global $next (mut i32) (i32.const 1024))
    ;; Nothing is given back.
    (func (export "realloc") (param i32 i32 i32) (param $size i32) (result i32) (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get $size)))
      (local.get $at)))
  (core instance $memory (instantiate $memory))
  (alias core export $memory "memory" (core memory $mem))
  (alias core export $memory "realloc" (core func $realloc))
  (core func $get (canon lower (func $config "get") (memory $mem) (realloc $realloc)))
  (core func $all (canon lower (func $config "get-all") (memory $mem) (realloc $realloc)))
  (core module $m
    (import "m" "memory" (memory 1))
    (import "m" "get" (func $get (param i32 i32 i32)))
    (import "m" "all" (func $all (param i32)))
    (data (i32.const 8) "COLOUR")
    (func $found (result i32)
      (call $get (i32.const 8) (i32.const 6) (i32.const 64))
      ;; A result that is no error, an option that is there, and the length of its text.
      (i32.eq (i32.const 5) (select (i32.load (i32.const 76)) (i32.const -1)
        (i32.and (i32.eqz (i32.load8_u (i32.const 64))) (i32.load8_u (i32.const 68))))))
    (func $some (result i32)
      (call $all (i32.const 128))
      ;; A result that is no error, and the length of its list.
      (i32.and (i32.eqz (i32.load8_u (i32.const 128))) (i32.ge_u (i32.load (i32.const 136)) (i32.const 1))))
    (func (export "run") (result i32) (i32.eqz (i32.and (call $found) (call $some)))))
  (core instance $i (instantiate $m (with "m" (instance
    (export "memory" (memory $mem)) (export "get" (func $get)) (export "all" (func $all))))))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $x (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $x)))

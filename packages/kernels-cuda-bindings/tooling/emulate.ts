/**
 * Builds the emulated GPU where g++ is: the kernels as they are, over emulation/. Out-of-bounds accesses of device
 * memory and of shared memory are faults there, and faults are errors of the driver.
 */

import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, globSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { root } from './sources.ts'

const compiler = process.env.CXX ?? 'g++'

/** Why there can be none here. */
export function noEmulation(): string | undefined {
  if (process.platform !== 'linux') return `no emulation on ${process.platform}`
  return spawnSync(compiler, ['--version']).status === 0 ? undefined : `no ${compiler}`
}

const FLAGS = [
  ...['-std=c++20', '-O2', '-fPIC', '-shared', '-DLOWBIT_EMULATION', '-Wall'],
  ...['-Wno-unknown-pragmas', '-Iemulation', '-Ikernels'],
]

/** The places in shared memory's arrays are checked always; a sanitized library checks every access. */
const CHECKS = {
  plain: ['-fsanitize=bounds', '-fsanitize-undefined-trap-on-error'],
  sanitized: [
    ...['-g', '-fno-omit-frame-pointer', '-fsanitize=address,undefined,float-cast-overflow'],
    '-fno-sanitize-recover=all',
  ],
} as const

/** What a process needs to load the sanitized library. */
export function sanitizedEnvironment(): Record<string, string> {
  const ask = ['-print-file-name=libasan.so']
  const runtime = String(spawnSync(compiler, ask).stdout).trim()
  // Node's engine frees little at its end, and fibers have stacks that the runtime does not know.
  const ASAN_OPTIONS = 'detect_leaks=0:detect_stack_use_after_return=0:allow_user_segv_handler=1'
  return { LD_PRELOAD: runtime, ASAN_OPTIONS, UBSAN_OPTIONS: 'print_stacktrace=1' }
}

/** The library's path; built once for its sources. */
export function buildEmulation(checks: keyof typeof CHECKS = 'plain'): string {
  const flags = [...FLAGS, ...CHECKS[checks]]
  const sources = globSync(['kernels/*', 'emulation/*'], { cwd: root }).sort()
  const hash = createHash('sha256').update(flags.join(' '))
  for (const file of sources) hash.update(readFileSync(path.join(root, file)))
  const folder = path.join(tmpdir(), `lowbit-cuda-${process.getuid?.() ?? 0}`)
  const library = path.join(folder, `libcuda-${hash.digest('hex').slice(0, 16)}.so`)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  if (!existsSync(library))
    alone(`${library}.lock`, library, () => compile(flags, sources, library))
  return library
}

function compile(flags: readonly string[], sources: readonly string[], library: string): void {
  const compiled = sources.filter((file) => /\.(cu|cpp)$/.test(file))
  const unfinished = `${library}.${process.pid}`
  const files = ['-x', 'c++', ...compiled, '-o', unfinished]
  execFileSync(compiler, [...flags, ...files], { cwd: root, stdio: 'pipe' })
  renameSync(unfinished, library)
}

const PATIENCE_MS = 180_000
const POLL_MS = 200

/** Test files run side by side: the first one builds, the others wait for it, but not for one that was killed. */
function alone(lock: string, library: string, build: () => void): void {
  const clock = new Int32Array(new SharedArrayBuffer(4))
  for (let waited = 0; waited < PATIENCE_MS; waited += POLL_MS) {
    if (existsSync(library)) return
    try {
      mkdirSync(lock)
      break
    } catch {
      Atomics.wait(clock, 0, 0, POLL_MS)
    }
  }
  try {
    if (!existsSync(library)) build()
  } finally {
    rmSync(lock, { recursive: true, force: true })
  }
}

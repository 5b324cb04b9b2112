/**
 * Prints what each kernel takes of a multiprocessor: registers, shared memory, spills, and how many of the threads
 * that it can hold at once are then busy (occupancy). `node tooling/resources.ts [sm_90]`; needs nvcc.
 */

import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { kernelsOf, modules, root } from './sources.ts'

const architecture = process.argv[2] ?? 'sm_90'

/** Threads, shared memory (KiB) and blocks of a multiprocessor (CUDA C++ Programming Guide, table of capabilities). */
const HOLDS: Readonly<Record<string, readonly [number, number, number]>> = {
  ...{ sm_75: [1024, 64, 16], sm_80: [2048, 164, 32], sm_86: [1536, 100, 16] },
  ...{ sm_89: [1536, 100, 24], sm_90: [2048, 228, 32], sm_100: [2048, 228, 32] },
  ...{ sm_120: [1536, 100, 24] },
}
const REGISTERS = 65_536
/** The system takes this of each block's shared memory from sm_80 on. */
const RESERVED = 1024

const holds = HOLDS[architecture]
if (!holds) throw new Error(`${architecture} is not among ${Object.keys(HOLDS).join(', ')}`)

function occupancy(threads: number, registers: number, shared: number): number {
  const [most, kilobytes, blocks] = holds
  const warps = threads / 32
  // Registers are given out to a warp in 256s.
  const byRegisters = Math.floor(REGISTERS / (Math.ceil((registers * 32) / 256) * 256) / warps)
  const whole = shared + (architecture === 'sm_75' ? 0 : RESERVED)
  const byShared = whole > 0 ? Math.floor((kilobytes * 1024) / whole) : blocks
  return (Math.min(blocks, byRegisters, byShared, Math.floor(most / threads)) * threads) / most
}

const rows = modules().flatMap((module) => {
  const flags = ['-std=c++17', '-O3', '-cubin', '-Xptxas', '-v', `-arch=${architecture}`]
  const files = ['-o', '/dev/null', `${module}.cu`]
  const cwd = path.join(root, 'kernels')
  const { stderr, status } = spawnSync(process.env.NVCC ?? 'nvcc', [...flags, ...files], { cwd })
  if (status !== 0) throw new Error(String(stderr))
  const kernels = kernelsOf(module)
  const reports = String(stderr).split("Compiling entry function '").slice(1)
  return reports.map((report) => {
    const [name] = report.split("'", 1)
    const find = (pattern: RegExp): number => Number(pattern.exec(report)?.[1] ?? 0)
    const registers = find(/Used (\d+) registers/)
    const shared = find(/(\d+) bytes smem/)
    const { threads } = kernels[name]
    const busy = `${Math.round(occupancy(threads, registers, shared) * 100)} %`
    return { kernel: name, threads, registers, shared, spills: find(/(\d+) bytes spill st/), busy }
  })
})
console.log(architecture)
console.table(rows.sort((a, b) => a.kernel.localeCompare(b.kernel)))

/** The contract of `Kernels` as a list of checks that need no test runner: what the tests run, and `lowbit doctor`. */

import type { Kernels } from '@lowbit/core'
import { collect, type Declare } from '../../checks/declare.ts'
import { expect } from '../../checks/expect.ts'
import { type BenchOf, type OpenBench, openBench } from './bench.ts'
import { cacheContract } from './cache.ts'
import { coupledContract } from './coupled.ts'
import { decoderContract } from './decoder.ts'
import { fittingContract } from './fitting.ts'
import { gradientContract } from './gradients.ts'
import { linearAlgebraContract } from './linear-algebra.ts'
import { matmulContract } from './matmul.ts'
import { memoryContract } from './memory.ts'
import { outliersContract } from './outliers.ts'
import { positionsContract } from './positions.ts'
import { roundingContract } from './rounding.ts'
import { samplingContract } from './sampling.ts'
import { tablesContract } from './tables.ts'
import { trainingContract } from './training.ts'
import { vectorContract } from './vectors.ts'

const GROUPS = {
  memory: memoryContract,
  matmul: matmulContract,
  'linear-algebra': linearAlgebraContract,
  fitting: fittingContract,
  rounding: roundingContract,
  tables: tablesContract,
  vectors: vectorContract,
  decoder: decoderContract,
  cache: cacheContract,
  outliers: outliersContract,
  coupled: coupledContract,
  positions: positionsContract,
  gradients: gradientContract,
  training: trainingContract,
  sampling: samplingContract,
} satisfies Record<string, (open: BenchOf, it: Declare) => void>

/** A group of checks, by its name in GROUPS: `memory`, `matmul`, `rounding`, … */
export type KernelGroup = keyof typeof GROUPS

export type MakeKernels = () => Promise<Kernels> | Kernels

export interface KernelContractOptions {
  /** The groups to check, where a variant of kernels differs in no other. Default: all. */
  readonly only?: readonly KernelGroup[]
  /** Groups that these kernels do not do yet, and why: shown with the skipped checks. */
  readonly skip?: Readonly<Record<string, string>>
}

export interface KernelCheck {
  readonly group: KernelGroup | 'object'
  readonly name: string
  /** Why it is not to be run. */
  readonly skipped?: string
  /** Rejects with what is and what should be; also where memory has not been given back. */
  run(): Promise<void>
}

export interface KernelChecks {
  readonly checks: readonly KernelCheck[]
  /** Disposes of the kernels that the checks have made. */
  close(): void
}

/** `make` is called once for all checks, when the first is run, and once more by the one that disposes. */
export function kernelChecks(
  make: MakeKernels,
  { only, skip = {} }: KernelContractOptions = {},
): KernelChecks {
  const unknown = Object.keys(skip).find((group) => !(group in GROUPS))
  if (unknown) {
    throw new Error(`there is no group ${unknown} to skip; there are ${Object.keys(GROUPS)}`)
  }
  let bench: OpenBench | undefined
  const open: BenchOf = () => {
    if (!bench) throw new Error('the kernels are made when the checks run')
    return bench
  }
  const checksOf = (
    group: KernelCheck['group'],
    declare: (it: Declare) => void,
    skipped?: string,
  ): KernelCheck[] =>
    collect(declare).map(({ name, run }) => ({
      ...{ group, name, ...(skipped !== undefined && { skipped }) },
      async run() {
        bench ??= openBench(await make())
        // Before each check, so that one that leaks or breaks off does not fail those after it.
        const start = bench.kernels.bytes
        try {
          await run()
        } finally {
          bench.clear()
        }
        expect(bench.kernels.bytes, 'bytes held after the check').toBe(start)
      },
    }))
  const names = only ?? (Object.keys(GROUPS) as KernelGroup[])
  const groups = names.flatMap((group) =>
    checksOf(group, (it) => GROUPS[group](open, it), skip[group]),
  )
  return {
    checks: [...groups, ...checksOf('object', (it) => objectContract(open, it, make))],
    close() {
      bench?.kernels.dispose()
      bench = undefined
    },
  }
}

function objectContract(open: BenchOf, it: Declare, make: MakeKernels): void {
  it('says what it is', () => {
    const { name, variant, strict } = open().kernels
    expect(/^[a-z][a-z0-9-]*$/.test(name), `the name ${name}`).toBe(true)
    expect(variant).not.toBe('')
    expect(typeof strict).toBe('boolean')
  })

  it('dispose ends it, and other kernels live on', async () => {
    const other = await make()
    const tensor = other.upload(Float32Array.of(1), 1, 1)
    expect([...(await other.read(tensor))]).toEqual([1])
    other.dispose()
    const { kernels, up } = open()
    expect([...(await kernels.read(up([2], 1, 1)))]).toEqual([2])
  })
}

export interface CheckResult {
  readonly group: KernelCheck['group']
  readonly name: string
  readonly ok: boolean
  /** What went wrong. */
  readonly error?: string
}

export interface RunChecksOptions extends KernelContractOptions {
  readonly signal?: AbortSignal
  /** Before each check; `done` of `total` are through. */
  readonly onProgress?: (done: number, total: number, next: KernelCheck) => void
}

/** Runs all checks one after the other, past those that fail; skipped ones have no result. */
export async function runKernelChecks(
  make: MakeKernels,
  { signal, onProgress, ...options }: RunChecksOptions = {},
): Promise<CheckResult[]> {
  const { checks, close } = kernelChecks(make, options)
  const due = checks.filter(({ skipped }) => skipped === undefined)
  const results: CheckResult[] = []
  try {
    for (const [i, check] of due.entries()) {
      signal?.throwIfAborted()
      onProgress?.(i, due.length, check)
      const { group, name } = check
      try {
        await check.run()
        results.push({ group, name, ok: true })
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error)
        results.push({ group, name, ok: false, error: message })
      }
    }
  } finally {
    close()
  }
  return results
}

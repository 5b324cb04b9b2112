/** lowbit doctor */

import os from 'node:os'
import type { Kernels } from '@lowbit/core'
import { bytes } from '@lowbit/inspection'
import { measureSpeed } from '@lowbit/testing/checks'
import type { Command } from 'commander'
import { wasmFeatures } from '../checkup/features.ts'
import { type Check, checkContract, checkDemo, checkMatrices } from '../checkup/results.ts'
import { addDeviceFlags, type DeviceFlags } from '../flags/device.ts'
import type { Action } from '../program.ts'
import type { Session } from '../session.ts'
import { paint } from '../terminal/style.ts'
import { facts } from '../terminal/table.ts'

export function define(command: Command, run: (action: Action) => Promise<void>): void {
  addDeviceFlags(command)
  command.option(
    '--contract',
    'check every operation against what it means (a GPU always is; some 20 seconds on a CPU)',
  )
  command.action((flags: DoctorFlags) => run((session) => examine(flags, session)))
}

interface DoctorFlags extends DeviceFlags {
  readonly contract?: boolean
}

/** What kernels of a GPU say beyond the rest. */
interface GpuFacts {
  readonly adapter: string
  readonly features: readonly string[]
  /** Which shaders were found fastest. */
  readonly choices: object
  peak(): Promise<{ readonly gigaflops: number; readonly gigabytesPerSecond: number }>
}

/** What kernels of an NVIDIA GPU say beyond the rest. */
interface CudaFacts {
  readonly driver: string
  readonly device: string
}

async function examine(flags: DoctorFlags, session: Session): Promise<void> {
  const features = wasmFeatures()
  const checks: Check[] = [
    { name: 'WebAssembly SIMD', ok: features.simd, detail: yes(features.simd) },
  ]
  const machine = {
    node: process.versions.node,
    system: `${os.type()} ${os.release()}, ${os.arch()}`,
    processor: os.cpus()[0]?.model ?? 'unknown',
    cores: os.availableParallelism(),
    memoryBytes: os.totalmem(),
    freeMemoryBytes: os.freemem(),
  }
  const strict = await session.kernels(flags, true)
  // A GPU has one set of kernels, which is not strict.
  const relaxed = strict.strict ? await session.kernels(flags, false) : strict
  const nvidia = 'driver' in relaxed ? (relaxed as Kernels & CudaFacts) : undefined
  const progress = session.progress('checking')
  try {
    for (const kernels of new Set([strict, relaxed])) {
      progress.update(kernels === strict ? 0.1 : 0.4, kernels.variant)
      const found = [
        ...(await attempt('products', () => checkMatrices(kernels))),
        ...(await attempt("the demo's logits", async () => [await checkDemo(kernels, session)])),
      ]
      checks.push(
        ...found.map((check) => ({ ...check, name: `${kernels.variant}: ${check.name}` })),
      )
      session.signal.throwIfAborted()
    }
    // Drivers of GPUs differ in what they get wrong; the CPU's kernels are the same WebAssembly everywhere.
    if (flags.contract || !strict.strict) {
      const make = () => session.kernels(flags, strict.strict)
      checks.push(...(await checkContract(make, session.signal, progress)))
    }
    progress.update(1, 'measuring speed')
  } finally {
    progress.end()
  }
  const speed = await measureSpeed(relaxed)
  const gpu = 'adapter' in relaxed ? (relaxed as Kernels & GpuFacts) : undefined
  const peak = await gpu?.peak()
  const healthy = checks.every(({ ok }) => ok)
  session.result({
    healthy,
    ...machine,
    features: gpu?.features ?? features,
    ...(gpu && { adapter: gpu.adapter, choices: gpu.choices, peak }),
    ...(nvidia && { driver: nvidia.driver, device: nvidia.device }),
    passed: checks.filter(({ ok }) => ok).length,
    failed: checks.filter(({ ok }) => !ok).length,
    gigabytesPerSecond: speed.memoryBytesPerSecond / 1e9,
    gigaflops: speed.gflops,
    kernels: { strict: strict.variant, fast: relaxed.variant },
    speed,
    checks,
  })
  session.print(
    facts([
      ['Node', machine.node],
      ['system', machine.system],
      ['processor', `${machine.processor}, ${machine.cores} cores`],
      ['memory', `${bytes(machine.memoryBytes)}, ${bytes(machine.freeMemoryBytes)} free`],
      ...(gpu ? [['adapter', gpu.adapter] as const] : []),
      ...(nvidia
        ? [['GPU', nvidia.device] as const, ['driver', `for CUDA ${nvidia.driver}`] as const]
        : []),
      ['relaxed SIMD', yes(features.relaxedSimd)],
      ['threads', features.sharedMemory ? 'yes' : 'no: everything runs on one thread'],
      ['kernels', `${relaxed.name}: ${relaxed.variant}; ${strict.variant} for quantizing`],
      ['dense products', `${speed.gflops.toFixed(1)} GFLOP/s`],
      ['int4 × vector', `${speed.int4Gflops.toFixed(1)} GFLOP/s`],
      ...(peak
        ? [['at most', `${peak.gigaflops.toFixed(1)} GFLOP/s of the adapter`] as const]
        : []),
      ['memory speed', `${bytes(speed.memoryBytesPerSecond)}/s`],
    ]),
  )
  session.print('\n')
  // Hundreds of lines that say the same would hide the one that does not.
  const shown = checks.length > MOST_SHOWN ? checks.filter(({ ok }) => !ok) : checks
  if (shown.length < checks.length) {
    session.print(`  ${checks.length - shown.length} of ${checks.length} checks passed\n`)
  }
  for (const { name, ok, detail } of shown) {
    const sign = ok ? paint('green', '✓') : paint('red', '✗')
    session.print(`  ${sign} ${name}: ${paint('dim', detail)}\n`)
  }
  session.print(
    healthy ? '\n  everything is right\n' : `\n  ${paint('red', 'something is wrong')}\n`,
  )
  if (!healthy) process.exitCode = 1
}

const yes = (has: boolean): string => (has ? 'yes' : 'no')

const MOST_SHOWN = 40

/** A check that throws has failed. */
async function attempt(name: string, work: () => Promise<Check[]>): Promise<Check[]> {
  try {
    return await work()
  } catch (error) {
    return [{ name, ok: false, detail: error instanceof Error ? error.message : String(error) }]
  }
}

/** The contract of kernels in a worker of a page. */

import type { Kernels } from '@lowbit/core'
import { cpu } from '@lowbit/kernels-cpu'
import { webgpu } from '@lowbit/kernels-webgpu'
import { type CheckResult, runKernelChecks } from '@lowbit/testing/checks'
import * as everything from './everything.ts'

export interface Request {
  readonly kernels: 'cpu' | 'webgpu'
  readonly threads?: number
}

export interface Report {
  readonly variant: string
  readonly isolated: boolean
  readonly results: readonly CheckResult[]
  /** Packages that are in the bundle beside the kernels, with what they export. */
  readonly bundled: Readonly<Record<string, number>>
}

globalThis.onmessage = async ({ data: { kernels, threads } }: MessageEvent<Request>) => {
  try {
    let variant = ''
    const make = async (): Promise<Kernels> => {
      const made = kernels === 'cpu' ? await cpu({ threads, strict: false }) : await webgpu()
      variant = made.variant
      return made
    }
    const results = await runKernelChecks(make)
    const bundled = Object.fromEntries(
      Object.entries(everything).map(([name, { length }]) => [name, length]),
    )
    const report: Report = { variant, isolated: globalThis.crossOriginIsolated, results, bundled }
    globalThis.postMessage(report)
  } catch (error) {
    globalThis.postMessage({ error: error instanceof Error ? error.message : String(error) })
  }
}

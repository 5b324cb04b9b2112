/** Which kernels this browser has, and why not others. */

import type { Kernels } from '@lowbit/core'
import { cpu } from '@lowbit/kernels-cpu'
import type { Capabilities, DeviceName } from './protocol.ts'

/** @param strict the same bits on every machine, for quantizing */
export async function openKernels(device: DeviceName, strict: boolean): Promise<Kernels> {
  if (device === 'cpu') return cpu({ strict })
  return (await import('@lowbit/kernels-webgpu')).webgpu()
}

export async function findCapabilities(): Promise<Capabilities> {
  const { usage = 0, quota = 0 } = await navigator.storage.estimate()
  const shares = globalThis.crossOriginIsolated === true
  return {
    webgpu: await findAdapter(),
    threads: shares ? Math.min(8, navigator.hardwareConcurrency) : 1,
    ...(!shares && {
      why: 'the page is not isolated from others (COOP and COEP headers), so memory can’t be shared between threads',
    }),
    storage: { usedBytes: usage, quotaBytes: quota },
  }
}

async function findAdapter(): Promise<Capabilities['webgpu']> {
  if (!navigator.gpu) return { why: 'this browser has no WebGPU' }
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: 'high-performance' })
  if (!adapter) return { why: 'the browser has WebGPU, but found no graphics adapter for it' }
  const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info
  const name = description || [vendor, architecture, device].filter(Boolean).join(' ')
  return { adapter: name || 'an adapter that does not say its name', software: isFallbackAdapter }
}

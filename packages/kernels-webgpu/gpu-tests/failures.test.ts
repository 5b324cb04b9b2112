/** A lost device and memory that runs out: an error that says so, and other kernels go on. */

import { seededRandom } from '@lowbit/core'
import { expect, it } from 'vitest'
import { PLAIN } from '../src/gpu/device.ts'
import { webgpu } from '../src/index.ts'

/** A GPU whose devices can be reached, to destroy them as a driver would. */
async function watched(): Promise<{ gpu: GPU; devices: GPUDevice[] }> {
  const dawn = await import('webgpu')
  Object.assign(globalThis, dawn.globals)
  const own = dawn.create([])
  const devices: GPUDevice[] = []
  const gpu = {
    wgslLanguageFeatures: own.wgslLanguageFeatures,
    async requestAdapter(options?: GPURequestAdapterOptions) {
      const adapter = await own.requestAdapter(options)
      if (!adapter) return null
      const request = adapter.requestDevice.bind(adapter)
      adapter.requestDevice = async (descriptor) => {
        const device = await request(descriptor)
        devices.push(device)
        return device
      }
      return adapter
    },
  }
  return { gpu: gpu as unknown as GPU, devices }
}

const plain = { features: [], choices: PLAIN }

it('a lost device is an error of the next call, and new kernels start where it was', async () => {
  const { gpu, devices } = await watched()
  const kernels = await webgpu({ gpu, ...plain })
  const values = Float32Array.from({ length: 64 }, seededRandom(1))
  const x = kernels.upload(values, 8, 8)
  kernels.add(x, x)
  const kept = await kernels.read(x)
  devices[0].destroy()
  await devices[0].lost
  await expect(kernels.read(x)).rejects.toMatchObject({
    name: 'LowbitError',
    code: 'device-lost',
    message: expect.stringMatching(/lost/),
  })
  expect(() => kernels.upload(values, 8, 8)).toThrow(/lost/)
  kernels.dispose()
  const next = await webgpu({ gpu, ...plain })
  const again = next.upload(kept, 8, 8)
  next.add(again, again)
  expect(await next.read(again)).toEqual(values.map((value) => 4 * value))
  next.dispose()
})

it('a device that is lost while it is waited for is an error, no hang', async () => {
  const { gpu, devices } = await watched()
  const kernels = await webgpu({ gpu, ...plain })
  const a = kernels.tensor(512, 512)
  for (let i = 0; i < 20; i++)
    kernels.multiply(a, kernels.tensor(512, 512), kernels.tensor(512, 512))
  const reading = kernels.read(a)
  devices[0].destroy()
  await expect(reading).rejects.toMatchObject({ name: 'LowbitError', code: 'device-lost' })
  kernels.dispose()
})

it('memory beyond the limit is an error that says how much, and what fits still fits', async () => {
  // Measuring takes more than that, which does not count.
  const kernels = await webgpu({ memoryLimit: 2 ** 20, features: [] })
  const half = kernels.tensor(256, 512)
  expect(() => kernels.tensor(512, 512)).toThrowError(
    expect.objectContaining({ code: 'out-of-memory', message: expect.stringMatching(/1048576/) }),
  )
  kernels.free(half)
  const whole = kernels.tensor(512, 512)
  expect((await kernels.read(whole)).every((value) => value === 0)).toBe(true)
  kernels.dispose()
})

it('a tensor larger than any buffer is an error, not a crash', async () => {
  const kernels = await webgpu(plain)
  expect(() => kernels.tensor(2 ** 20, 2 ** 20)).toThrowError(
    expect.objectContaining({ code: 'out-of-memory' }),
  )
  expect([...(await kernels.read(kernels.upload(Float32Array.of(1), 1, 1)))]).toEqual([1])
  kernels.dispose()
})

it('choices are kept for an adapter, and what is no choice is measured again', async () => {
  const store = new Map<string, string>()
  const cache = {
    getItem: (key: string) => store.get(key) ?? null,
    setItem: (key: string, value: string) => void store.set(key, value),
  }
  const first = await webgpu({ cache })
  const [[key, text]] = store
  expect(JSON.parse(text)).toEqual(first.choices)
  expect(key).toContain(first.adapter)
  first.dispose()
  const { product } = first.choices
  const other = { ...first.choices, product: product === 'tiles' ? 'subgroups' : 'tiles' }
  store.set(key, JSON.stringify(other))
  const second = await webgpu({ cache })
  expect(second.choices).toEqual(other)
  second.dispose()
  store.set(key, '{"product":"magic"}')
  const third = await webgpu({ cache })
  expect(third.choices).toEqual(JSON.parse(store.get(key) ?? ''))
  third.dispose()
})

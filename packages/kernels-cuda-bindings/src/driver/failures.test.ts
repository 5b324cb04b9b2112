/** What goes wrong with a driver is an error in words: on an emulated GPU that can be told to go wrong. */

import { afterEach, describe, expect, it } from 'vitest'
import { buildEmulation, noEmulation } from '../../tooling/emulate.ts'
import { cuda } from '../index.ts'
import { openDevice } from './device.ts'

const reason = noEmulation()
const library = reason ? '' : buildEmulation()

/** What the emulated machine is asked to be; it reads the process's environment. */
function pretend(what: 'DEVICES' | 'DRIVER' | 'MEMORY', value: number): void {
  process.env[`LOWBIT_EMULATED_${what}`] = String(value)
}

afterEach(() => {
  for (const what of ['DEVICES', 'DRIVER', 'MEMORY']) delete process.env[`LOWBIT_EMULATED_${what}`]
})

const refusal = (code: string, message: RegExp) => ({
  ...{ name: 'LowbitError', code, message: expect.stringMatching(message) },
})

it('no library: no driver', async () => {
  const missing = cuda({ library: 'libnot-there.so.1' })
  await expect(missing).rejects.toMatchObject(
    refusal('no-device', /^no NVIDIA driver here: libnot-there\.so\.1 cannot be loaded$/),
  )
})

describe.skipIf(reason !== undefined)(`an emulated GPU${reason ? ` (${reason})` : ''}`, () => {
  it('says what it is', async () => {
    const kernels = await cuda({ library })
    expect(kernels).toMatchObject({ name: 'cuda', driver: '13.0', device: 'emulated GPU (9.0)' })
    kernels.dispose()
  })

  it('a driver without a GPU, and a GPU that is not there', async () => {
    await expect(cuda({ library, device: 3 })).rejects.toMatchObject(
      refusal('no-device', /there is no GPU of this number.*opening GPU 3/),
    )
    pretend('DEVICES', 0)
    await expect(cuda({ library })).rejects.toMatchObject(
      refusal('no-device', /the NVIDIA driver finds no GPU here \(CUDA_ERROR_NO_DEVICE/),
    )
  })

  it('an old driver: what it has, and what is needed', async () => {
    pretend('DRIVER', 11040)
    await expect(cuda({ library })).rejects.toMatchObject(
      refusal('no-device', /too old: it is for CUDA 11\.4, and 12\.0 is needed/),
    )
  })

  it('memory that runs out, and what fits still fits', async () => {
    const kernels = await cuda({ library })
    pretend('MEMORY', 2 ** 20)
    const half = kernels.tensor(256, 512)
    expect(() => kernels.tensor(512, 512)).toThrowError(
      expect.objectContaining(refusal('out-of-memory', /no memory left.*allocating 1048576 bytes/)),
    )
    // What was given back is kept for its size, until another size needs it.
    kernels.free(half)
    const whole = kernels.tensor(512, 512)
    expect((await kernels.read(whole)).every((value) => value === 0)).toBe(true)
    kernels.dispose()
  })

  it('memory beyond the limit', async () => {
    const kernels = await cuda({ library, memoryLimit: 2 ** 20 })
    expect(() => kernels.tensor(512, 513)).toThrowError(
      expect.objectContaining(refusal('out-of-memory', /the limit is 1048576/)),
    )
    kernels.dispose()
  })

  it.each([
    ['one number past the end of a tensor', 'add', { count: 9, period: 8 }, 1],
    ['far from any tensor', 'add', { count: 1024, period: 8 }, 8],
    ['past shared memory', 'rotate', { columns: 16384, block: 16384 }, 1],
  ])('%s is an illegal access, which lasts', async (_, kernel, sizes, blocks) => {
    const device = openDevice({ library, ordinal: 0, memoryLimit: Number.POSITIVE_INFINITY })
    const [x, y] = [device.place(new Float32Array(8)), device.place(new Float32Array(8))]
    const signs = device.place(new Uint32Array(512))
    const wide = device.place(new Float32Array(16384))
    const args = { x: kernel === 'rotate' ? wide : x, y, signs, ...sizes }
    expect(() => device.run(kernel, args, blocks)).toThrowError(
      expect.objectContaining(
        refusal('device-lost', /memory that is not its own \(CUDA_ERROR_ILLEGAL_ADDRESS, running/),
      ),
    )
    expect(() => device.allocate(4)).toThrowError(
      expect.objectContaining(refusal('device-lost', /an earlier error ended the work/)),
    )
    device.dispose()
    const next = await cuda({ library })
    expect([...(await next.read(next.upload(Float32Array.of(1), 1, 1)))]).toEqual([1])
    next.dispose()
  })

  it('what is disposed of says so', async () => {
    const kernels = await cuda({ library })
    kernels.dispose()
    kernels.dispose()
    expect(() => kernels.tensor(1, 1)).toThrow(/disposed/)
  })

  it('measures what kernels take, and leaves their results', async () => {
    const kernels = await cuda({ library })
    const values = Float32Array.from({ length: 64 * 64 }, (_, i) => (i % 7) - 3)
    const [a, b, out] = [0, 0, 0].map(() => kernels.upload(values, 64, 64))
    const before = kernels.bytes
    expect(kernels.measure(() => kernels.multiply(out, a, b))).toBeGreaterThan(0)
    const found = (await kernels.read(out)).slice()
    kernels.multiply(out, a, b)
    expect(await kernels.read(out)).toEqual(found)
    expect(kernels.bytes).toBe(before)
    expect(() => kernels.measure(() => kernels.upload(values, 64, 64))).toThrowError(
      expect.objectContaining(refusal('bad-option', /may neither upload nor read back/)),
    )
    kernels.dispose()
  })

  it('reads what is there at the call, while others run', async () => {
    const kernels = await cuda({ library })
    const x = kernels.upload(Float32Array.of(1, 2), 1, 2)
    let turned = false
    setImmediate(() => {
      turned = true
    })
    const first = kernels.read(x)
    kernels.write(x, Float32Array.of(3, 4))
    const second = kernels.read(x)
    expect([[...(await first)], [...(await second)]]).toEqual([
      [1, 2],
      [3, 4],
    ])
    expect(turned).toBe(true)
    kernels.dispose()
  })

  it('a read that is under way when all is disposed of says so', async () => {
    const kernels = await cuda({ library })
    const reading = kernels.read(kernels.upload(Float32Array.of(1), 1, 1))
    kernels.dispose()
    await expect(reading).rejects.toMatchObject(refusal('bad-tensor', /disposed of/))
  })
})

import { readFile } from 'node:fs/promises'
import { decode, type RawTensor, toFloat32 } from '@lowbit/core'
import { openSafetensors } from '@lowbit/safetensors'
import { expect, it } from 'vitest'
import { gptq } from './gptq.ts'

it('reads what GPTQModel wrote as GPTQModel does, and writes the same bytes', async () => {
  const bytes = await readFile(
    new URL('../../fixtures/gptqmodel-4bit.safetensors', import.meta.url),
  )
  const file = await openSafetensors(new Uint8Array(bytes))
  const config = { quantization_config: JSON.parse(file.metadata.get('quantization_config')!) }
  expect(gptq.detect(config)).toBe(true)
  const tensors = new Map<string, RawTensor>()
  for (const [name, { dtype, shape }] of file.tensors) {
    if (name !== 'expected') tensors.set(name, { dtype, shape, bytes: await file.read(name) })
  }
  const matrix = gptq.read('m', tensors, { config })
  expect(matrix).toMatchObject({ rows: 128, columns: 256 })
  expect('order' in matrix, 'act-order').toBe(true)
  const expected = toFloat32('f16', new Uint16Array((await file.read('expected')).buffer))
  if (!('stages' in matrix)) throw new Error('not a quantized matrix')
  decode(matrix).forEach((x, i) => {
    // Theirs is rounded to f16.
    if (Math.abs(x - expected[i]) > 2 ** -11 * Math.abs(x) + 1e-7)
      expect(x, `weight ${i}`).toBe(expected[i])
  })
  for (const [name, { dtype, shape, bytes }] of gptq.write('m', matrix)) {
    expect({ name, dtype, shape }).toEqual({
      name,
      dtype: tensors.get(name)?.dtype,
      shape: tensors.get(name)?.shape,
    })
    expect(Buffer.compare(bytes, tensors.get(name)!.bytes), name).toBe(0)
  }
})

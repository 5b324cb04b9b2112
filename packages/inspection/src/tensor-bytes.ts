import type { Folder } from '@lowbit/formats'

/** Bytes of the tensors in a model's safetensors files, headers not counted; reads eight bytes of each. */
export async function tensorBytes(folder: Folder): Promise<number> {
  let total = 0
  for (const name of await folder.list()) {
    if (!/^model.*\.safetensors$/.test(name)) continue
    const source = await folder.source(name)
    try {
      const header = await source.read(0, 8)
      const length = new DataView(header.buffer, header.byteOffset).getBigUint64(0, true)
      total += source.size - 8 - Number(length)
    } finally {
      await source.close?.()
    }
  }
  return total
}

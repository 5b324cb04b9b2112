/** Copies of the bundled model that something is wrong with. */

import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { DEMO_MODEL } from '@lowbit/demo-model'

export const demoFile = (name: string): string => fileURLToPath(new URL(name, DEMO_MODEL.folder))

const FILES = ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json']

export function copyDemo(to: string): string {
  for (const file of FILES) cpSync(demoFile(file), path.join(to, file), { recursive: true })
  return to
}

/** Where a tensor's bytes are in the file. */
export function locate(file: string, tensor: string): { begin: number; end: number } {
  const bytes = readFileSync(file)
  const length = Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString()) as Record<
    string,
    { data_offsets: [number, number] }
  >
  const [begin, end] = header[tensor].data_offsets
  return { begin: 8 + length + begin, end: 8 + length + end }
}

/** Puts an f16 into the middle of a tensor. */
export function poison(file: string, tensor: string, half: number): void {
  const bytes = readFileSync(file)
  const { begin, end } = locate(file, tensor)
  bytes.writeUInt16LE(half, begin + Math.floor((end - begin) / 4) * 2)
  writeFileSync(file, bytes)
}

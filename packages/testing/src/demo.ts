/** The files of the bundled model, for tests in Node. */

import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { DEMO_MODEL } from '@lowbit/demo-model'

/** The folder as a path, as a user would write it on the command line. */
export function demoFolder(): string {
  return fileURLToPath(DEMO_MODEL.folder)
}

/** The path of one of its files: "model.safetensors". */
export function demoPath(file: string): string {
  return fileURLToPath(new URL(file, DEMO_MODEL.folder))
}

/** The bytes of one of its files. */
export function readDemoFile(file: string): Promise<Uint8Array> {
  return readFile(demoPath(file))
}

/** The text that the model was trained on, or the one that it has never seen. */
export function readDemoText(which: 'calibration' | 'evaluation'): Promise<string> {
  return readFile(fileURLToPath(DEMO_MODEL[which]), 'utf8')
}

/** The container of logits that the model must reproduce. */
export function readDemoLogits(): Promise<Uint8Array> {
  return readFile(fileURLToPath(DEMO_MODEL.referenceLogits))
}

/** What the page and its workers say to each other: plain data, so that it can be cloned. */

import type { OptionDescription } from '@lowbit/core'
import type { Place, WholeReport } from '@lowbit/inspection'
import type { ModuleReport, Recipe } from '@lowbit/pipeline'

/** Where a model is. Files and handles are the browser's own and stay on this machine. */
export type ModelSource =
  | { readonly kind: 'demo' }
  | { readonly kind: 'files'; readonly name: string; readonly files: readonly File[] }
  | {
      readonly kind: 'directory'
      readonly name: string
      readonly handle: FileSystemDirectoryHandle
    }
  /** A folder on a web server: `config.json` and the rest lie below it. */
  | { readonly kind: 'url'; readonly url: string }
  | { readonly kind: 'hub'; readonly id: string }
  /** What a job of the studio has made. */
  | { readonly kind: 'job'; readonly id: string }

export interface ModelFacts {
  readonly name: string
  /** Tells this opening from all others: another model may stand under the same name by now. */
  readonly opening: string
  readonly source: ModelSource
  readonly format: string
  /** config.json. */
  readonly config: Readonly<Record<string, unknown>>
  readonly architecture: string
  readonly layers: number
  readonly hidden: number
  readonly context: number
  readonly vocabulary: number
  /** Bytes of the tensors in its files. */
  readonly bytes: number
  /** Every module with a matrix. */
  readonly allModules: readonly string[]
  /** The linears of the blocks. */
  readonly modules: readonly Place[]
  readonly chats: boolean
  /** Whether texts for calibration and evaluation come with it. */
  readonly hasTexts: boolean
  /** Where it was quantized by lowbit: what was done to each module. */
  readonly report?: WholeReport
}

export interface MethodInfo {
  readonly name: string
  readonly summary: string
  readonly source?: string
  readonly fields: readonly OptionDescription[]
  /** Whether it is fitted to a text before it is used. */
  readonly learns?: boolean
}

/** A recipe's section on keys and values. */
export type CacheSection = NonNullable<Recipe['cache']>

export type DeviceName = 'webgpu' | 'cpu'

export interface Adapter {
  /** Its name. */
  readonly adapter: string
  /** No graphics card, but a program that plays one. */
  readonly software: boolean
}

export interface Capabilities {
  /** Or why there is none. */
  readonly webgpu: Adapter | { readonly why: string }
  /** Threads of the CPU's kernels; 1 where memory cannot be shared. */
  readonly threads: number
  readonly why?: string
  readonly memoryBytes?: number
  readonly storage: { readonly usedBytes: number; readonly quotaBytes: number }
}

/** What a recipe comes to for a model. */
export interface Assigned {
  readonly modules: Readonly<Record<string, { method: string; label: string; bits?: number }>>
  /** Whether any of its methods measures the model on a text. */
  readonly needsText: boolean
}

export interface Job {
  readonly id: string
  readonly name: string
  /** The source's name, for people. */
  readonly model: string
  readonly recipe: string
  readonly device: DeviceName
  readonly created: number
  readonly state: 'unfinished' | 'done'
  /** Whether the model can be opened again without asking. */
  readonly reopens: boolean
}

export interface JobRequest {
  readonly id: string
  readonly source: ModelSource
  /** YAML. */
  readonly recipe: string
  /** The calibration text; that of the demo where it is left out. */
  readonly text?: string
  readonly device: DeviceName
}

export type JobEvent =
  | { readonly kind: 'loading'; readonly what: string }
  | { readonly kind: 'start'; readonly parts: number; readonly resumed: number }
  | { readonly kind: 'step'; readonly what: string; readonly done: number }
  | { readonly kind: 'module'; readonly report: ModuleReport; readonly seconds: number }
  | { readonly kind: 'memory'; readonly bytes: number }

export interface Comparison {
  readonly perplexity: number
  readonly referencePerplexity: number
  readonly kl: number
  readonly tokens: number
}

export interface ChatAnswer {
  readonly text: string
  readonly tokens: readonly string[]
  readonly tokensPerSecond: number
  readonly prefillSeconds: number
  /** Tokens of the prompt that were in memory from the question before. */
  readonly reusedTokens: number
}

export interface Checkup {
  readonly device: DeviceName
  readonly variant: string
  readonly passed: number
  readonly failed: readonly { readonly name: string; readonly error: string }[]
  readonly gigaflops: number
  readonly int4Gigaflops: number
  readonly gigabytesPerSecond: number
}

/** An error that has come through the wall between worker and page. */
export interface PlainError {
  readonly code: string
  readonly message: string
}

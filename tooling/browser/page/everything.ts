/** Every package that says it runs in browsers, whole, so that a bundler has to take all of it. */

import * as core from '@lowbit/core'
import * as formats from '@lowbit/formats'
import * as model from '@lowbit/model'
import * as palettize from '@lowbit/palettize'
import * as pipeline from '@lowbit/pipeline'
import * as gptq from '@lowbit/quantizer-gptq'
import * as gptvq from '@lowbit/quantizer-gptvq'
import * as rtn from '@lowbit/quantizer-rtn'
import * as vptq from '@lowbit/quantizer-vptq'
import * as safetensors from '@lowbit/safetensors'

const exported = (module: object): readonly unknown[] => Object.values(module)

export const coreExports = exported(core)
export const formatsExports = exported(formats)
export const modelExports = exported(model)
export const palettizeExports = exported(palettize)
export const pipelineExports = exported(pipeline)
export const gptqExports = exported(gptq)
export const gptvqExports = exported(gptvq)
export const rtnExports = exported(rtn)
export const vptqExports = exported(vptq)
export const safetensorsExports = exported(safetensors)

"""The flags that a server would tell if it showed them: what is not known of one that keeps them shut.

Names that a vLLM 0.32.0 for CPU tells without further flags (tests/e2e/test_attached.py asks one). Other versions have
a few more and a few less.
"""

_BY_SECTION = {
    "config.model": """
        runner convert tokenizer_mode dtype seed enforce_eager max_logprobs logprobs_mode
        disable_cascade_attn config_format generation_config sleep_mode_backend model_impl
        renderer_num_workers
    """,
    "config.cache": """
        block_size gpu_memory_utilization prefix_caching_hash_algo prefix_cache_retention_interval
        mamba_cache_dtype mamba_ssm_cache_dtype mamba_cache_mode replayssm_buffer_len
        effective_attention_block_size swa_bounded_replay kv_cache_memory_bytes kv_offloading_backend
    """,
    "config.parallel": """
        pipeline_parallel_size tensor_parallel_size prefill_context_parallel_size data_parallel_size
        data_parallel_size_local dp_sync_interval data_parallel_backend eplb_config.window_size
        eplb_config.step_interval eplb_config.num_redundant_experts eplb_config.log_balancedness_interval
        eplb_config.use_async eplb_config.policy expert_placement_strategy all2all_backend
        disable_custom_all_reduce elastic_ep_max_dp_size ubatch_size dbo_decode_token_threshold
        dbo_prefill_token_threshold disable_nccl_for_dp_synchronization distributed_executor_backend
        worker_cls nnodes world_size decode_context_parallel_size dcp_kv_cache_interleave_size
        dcp_comm_backend cp_kv_cache_interleave_size data_parallel_index
        fault_tolerance_config.engine_recovery_timeout_sec
    """,
    "config.scheduler": """
        runner_type max_num_batched_tokens max_num_seqs long_prefill_token_threshold enable_chunked_prefill
        max_num_encoder_input_tokens encoder_cache_size policy scheduler_reserve_full_isl watermark
        prefill_schedule_interval stream_interval
    """,
    "config.device": """
        device
    """,
    "config.load": """
        load_format safetensors_prefetch_num_threads safetensors_prefetch_block_size ignore_patterns
        use_tqdm_on_load pt_load_map_location
    """,
    "config.offload": """
        offload_backend uva.cpu_offload_gb prefetch.offload_group_size prefetch.offload_num_in_group
        prefetch.offload_prefetch_step
    """,
    "config.attention": """
        minimax_m3_msa_decode_backend flash_attn_max_num_splits_for_cuda_graph tokenspeed_mla_min_split_kv
        tq_max_kv_splits_for_cuda_graph indexer_kv_dtype sparse_mla_prefill_workspace_factor
    """,
    "config.mamba": """
        backend stochastic_rounding_philox_rounds
    """,
    "config.kernel": """
        ir_op_priority.rms_norm ir_op_priority.fused_add_rms_norm ir_op_priority.gelu_and_mul_sparse
        enable_flashinfer_autotune enable_cutedsl_warmup moe_backend sparse_indexer_topk_backend
        linear_backend
    """,
    "config.structured_outputs": """
        backend
    """,
    "config.compilation": """
        mode compile_cache_save_format backend custom_ops encoder_cudagraph_max_vision_items_per_batch
        cudagraph_decoder_replay decoder_replay_trim_threshold compile_ranges_endpoints cudagraph_mode
        cudagraph_num_of_warmups cudagraph_specialize_lora pass_config.eliminate_noops
        pass_config.rope_kvcache_fusion_max_token_num dynamic_shapes_config.type
    """,
    "env": """
        VLLM_CPU_INT4_W4A8 VLLM_DEEP_GEMM_WARMUP VLLM_FLOAT32_MATMUL_PRECISION VLLM_MOE_USE_DEEP_GEMM
        VLLM_MXFP8_EMULATION_DEQUANT_AT_LOAD VLLM_USE_DEEP_GEMM VLLM_USE_DEEP_GEMM_E8M0
        VLLM_USE_DEEP_GEMM_TMA_ALIGNED_SCALES VLLM_USE_FLASHINFER_SAMPLER
    """,
    "config": "optimization_level performance_mode",
}

FLAGS = tuple(f"{section}.{name}" for section, names in _BY_SECTION.items() for name in names.split())
